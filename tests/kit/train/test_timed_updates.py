"""Updates are timed on a borrowed base, which is left as it was, and what does not fit is noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from encoded_rows import labelled
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.data.batch_order import BatchOrder, order_batches
from kit.data.token_rows import TokenRows
from kit.plan.after_oom import RehearsalError

if TYPE_CHECKING:
    from pathlib import Path

    from kit.config.settings import Settings

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch", reason="needs the libraries: make setup")

UPDATES = 2
SHORT, LONG = 8, 40  # tokens
NUMBER = 24  # rows


def _settings(base: Path, output: Path, **changes: Any) -> Settings:
    return resolve(
        PROJECT_ROOT / "configs/training_config_demo.yaml",
        {
            "model.model_name_or_path": str(base),
            "training.output_dir": str(output),
            "training.max_steps": 6,
            "training.per_device_train_batch_size": 2,
            "training.gradient_accumulation_steps": 2,
            "quantization.load_in_4bit": False,
            **{key.replace("__", "."): value for key, value in changes.items()},
        },
    ).settings


def _plan(settings: Settings) -> BatchOrder:
    """Lay out a run whose longest row comes last."""
    last = _of_lengths(settings, {}).order[-1]
    return _of_lengths(settings, {last: LONG})


def _of_lengths(settings: Settings, lengths: dict[int, int]) -> BatchOrder:
    sizes = [lengths.get(index, SHORT) for index in range(NUMBER)]
    rows = [
        labelled([5 + place % 80 for place in range(size)], [(1, size)], index + 1, size)
        for index, size in enumerate(sizes)
    ]
    return order_batches(settings, TokenRows.of(rows))


def _trained(base: Any, settings: Settings) -> dict[str, Any]:
    from kit.modeling.model import attach_adapter
    from kit.train.trainer import build_trainer

    model = attach_adapter(base, settings)
    build_trainer(model, settings, _plan(settings), "cpu", []).train()
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def _described(base: Any) -> list[Any]:
    """Say what a model is made of: module by module what it holds, and its configuration."""
    modules = [
        (name, type(module), {key: _shown(value) for key, value in vars(module).items()})
        for name, module in base.named_modules()
    ]
    return [base.config.to_dict(), *modules]


def _shown(value: Any) -> Any:
    return list(value) if isinstance(value, (dict, list, set)) else id(value)


def test_whoever_borrows_a_base_trains_as_if_nobody_had_before(tiny_base: Path, tmp_path: Path) -> None:
    from kit.modeling.model import load_base_model
    from kit.modeling.resident import ResidentBase
    from kit.stacks.stack import installed_stack
    from kit.train.timed_updates import time_updates

    settings = _settings(tiny_base, tmp_path)
    attention = installed_stack().attention_of(settings, "cpu")
    alone = _trained(load_base_model(settings, "cpu"), settings)
    kept = load_base_model(settings, "cpu")
    resident, before = ResidentBase(kept), _described(kept)
    other = _settings(tiny_base, tmp_path, training__gradient_checkpointing=True)
    for each in (other, settings):
        with resident.borrowed(attention) as base:
            seconds, peak = time_updates(base, each, _plan(each), "cpu", UPDATES, lambda: None)
            assert len(seconds) == UPDATES - 1
            assert peak > 10**8
        assert _described(kept) == before
    with resident.borrowed(attention) as base:
        borrowed = _trained(base, settings)
    assert borrowed.keys() == alone.keys()
    assert all(torch.equal(weight, borrowed[name]) for name, weight in alone.items())


def test_what_does_not_fit_later_in_the_run_is_noticed_in_its_first_updates(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trl

    from kit.modeling.model import load_base_model
    from kit.train.timed_updates import time_updates

    compute = trl.SFTTrainer.compute_loss

    def compute_or_refuse(self: Any, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        if inputs["input_ids"].shape[1] > SHORT:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return compute(self, model, inputs, *more, **named)

    monkeypatch.setattr(trl.SFTTrainer, "compute_loss", compute_or_refuse)
    settings = _settings(tiny_base, tmp_path)
    with pytest.raises(RehearsalError, match="2 x 40 tokens"):
        time_updates(load_base_model(settings, "cpu"), settings, _plan(settings), "cpu", UPDATES, lambda: None)
