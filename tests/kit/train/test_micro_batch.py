"""The trainer takes the plan's micro-batches, or none at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit.cli.failures import explain
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.data.batch_order import order_batches
from kit.data.encoding import IGNORE_INDEX, EncodedRow
from kit.data.token_rows import TokenRows
from kit.train.arguments import MicroBatchError

pytest.importorskip("torch", reason="needs the libraries: make setup")


def _built(base: Path, output: Path) -> Any:
    from kit.modeling.model import attach_adapter, load_base_model
    from kit.train.trainer import build_trainer

    changes = {
        "model.model_name_or_path": str(base),
        "training.output_dir": str(output),
        "training.per_device_train_batch_size": 4,
        "training.gradient_accumulation_steps": 2,
        "quantization.load_in_4bit": False,
    }
    settings = resolve(PROJECT_ROOT / "configs/training_config_demo.yaml", changes).settings
    rows = TokenRows.of(EncodedRow([5, 6, 7], [IGNORE_INDEX, 6, 7], line, 3) for line in range(16))
    plan = order_batches(settings, rows)
    return build_trainer(attach_adapter(load_base_model(settings, "cpu"), settings), settings, plan, "cpu", [])


@pytest.mark.parametrize(("what", "message"), [("n_gpu", "8 rows at once on 2 devices"), ("world_size", "4 rows")])
def test_a_trainer_that_would_spread_its_rows_over_two_devices_is_refused(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, message: str
) -> None:
    import transformers

    monkeypatch.setattr(transformers.TrainingArguments, what, property(lambda _self: 2))
    with pytest.raises(MicroBatchError, match=rf"{message}.*, but the plan counts 4 on one") as refused:
        _built(tiny_base, tmp_path)
    finding = explain(refused.value)
    assert finding is not None
    assert (finding.id, "CUDA_VISIBLE_DEVICES=0" in finding.fix) == ("run.micro_batch", True)


def test_rows_are_drawn_in_the_plans_micro_batches(tiny_base: Path, tmp_path: Path) -> None:
    trainer = _built(tiny_base, tmp_path)
    assert len(next(iter(trainer.get_train_dataloader()))["input_ids"]) == 4
    trainer._train_batch_size = 8  # what the libraries do by themselves where they see two GPUs
    with pytest.raises(MicroBatchError, match="8 rows at once on 1 device,"):
        trainer.get_train_dataloader()
