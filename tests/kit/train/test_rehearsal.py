"""The rehearsal: the largest micro-batch is found, is worked through before the first step, and leaves no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.data.batch_order import FILLER, order_batches
from kit.data.encoding import IGNORE_INDEX, EncodedRow
from kit.data.token_rows import TokenRows

torch = pytest.importorskip("torch", reason="needs the libraries: make setup")

DEMO = PROJECT_ROOT / "configs/training_config_demo.yaml"


def _row(length: int, line: int) -> EncodedRow:
    ids = [5 + position % 80 for position in range(length)]
    return EncodedRow(ids, [IGNORE_INDEX, *ids[1:]], line, length)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=20), size=st.integers(1, 5), padding_free=st.booleans()
)
def test_no_micro_batch_has_more_tokens(lengths: list[int], size: int, padding_free: bool) -> None:
    from kit.train.rehearsal import largest_micro_batch

    order = [*range(len(lengths)), FILLER]
    begin, most = largest_micro_batch(order, np.array(lengths), size, padding_free=padding_free)
    padded = [*lengths, 1]
    batches = [padded[at : at + size] for at in range(0, len(padded), size)]
    costs = [sum(batch) if padding_free else max(batch) * len(batch) for batch in batches]
    assert most == max(costs)
    assert costs[begin // size] == most


def _train(base: Path, output: Path, *, told: list[Any] | None) -> dict[str, Any]:
    from kit.modeling.model import attach_adapter, load_base_model
    from kit.train.trainer import build_trainer

    changes = {
        "model.model_name_or_path": str(base),
        "training.output_dir": str(output),
        "training.max_steps": 3,
        "training.per_device_train_batch_size": 2,
        "training.gradient_accumulation_steps": 2,
        "quantization.load_in_4bit": False,
    }
    run_settings = resolve(DEMO, changes).settings
    plan = order_batches(run_settings, TokenRows.of(_row(4 + line % 30, line) for line in range(1, 13)))
    model = attach_adapter(load_base_model(run_settings, "cpu"), run_settings)
    trainer: Any = build_trainer(model, run_settings, plan, "cpu", [])
    if told is not None:
        trainer.on_rehearsal = told.append
    trainer.train()
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.slow
def test_a_rehearsed_run_is_bit_for_bit_the_run_without(tiny_base: Path, tmp_path: Path) -> None:
    told: list[Any] = []
    plain = _train(tiny_base, tmp_path / "plain", told=None)
    rehearsed = _train(tiny_base, tmp_path / "rehearsed", told=told)
    assert all(torch.equal(weight, rehearsed[name]) for name, weight in plain.items())
    (rehearsal,) = told
    assert (rehearsal.rows, rehearsal.length) == (2, 16)
    assert rehearsal.memory_bytes > 0
