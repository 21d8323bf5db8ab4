"""Whatever stands in a checkpoint's state, reading it ends in a state to train on or in one sentence."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.run_directory.checkpoints import ResumeError

pytestmark = pytest.mark.slow
torch: Any = pytest.importorskip("torch", reason="needs the libraries: make setup")

STEP, MUTANTS = 3, 500
_VALUES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 10**30, 0.5, float("inf"), "", "text", "\x1b[31m", [], [1], {}, {"a": 1}, {"tensor": "gone"},
    {"tensor": ["x"]}, {"dict": [[1]]}, {"dict": [[[], 1]]}, {"list": 1}, {"tuple": [[]]}, {"odd": 1}, {"a": 1, "b": 2},
)  # fmt: skip


def _adafactor(weights: Any, lr: float) -> Any:
    from transformers.optimization import Adafactor

    return Adafactor(weights, lr=lr, scale_parameter=False, relative_step=False)


def _trainer(kind: Any = torch.optim.AdamW) -> Any:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    optimizer = kind(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    state, accelerator = SimpleNamespace(global_step=0), SimpleNamespace(scaler=None)
    return SimpleNamespace(
        model=model, optimizer=optimizer, lr_scheduler=schedule, state=state, accelerator=accelerator
    )


def _train(trainer: Any, steps: int) -> None:
    for _ in range(steps):
        trainer.model(torch.randn(4, 3)).sum().backward()
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        trainer.state.global_step += 1


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from kit.train import state

    monkeypatch.setattr(state, "portable_lora_config", lambda _model: {})
    return _saved(tmp_path, _trainer())


def _saved(folder: Path, trainer: Any) -> Path:
    from kit.train import state

    _train(trainer, STEP)
    state.save_state(folder, trainer, state.RandomState.capture("cpu"), evaluation_is_due=False)
    return folder


def _places(value: Any) -> list[tuple[Any, Any]]:
    """List everything in a JSON value that can be replaced; of long lists of numbers, the first."""
    pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value[:5]))
    found = [(value, key) for key, _ in pairs]
    return found + [place for _, inner in pairs if isinstance(inner, (dict, list)) for place in _places(inner)]


class _Scaler:
    """Of losses, for float16: transformers leaves out optimizer and schedule where a gradient overflows."""

    def state_dict(self) -> dict[str, Any]:
        return {"scale": 16384.0}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert state == self.state_dict()


@pytest.mark.parametrize("done", [0, 1])
def test_steps_that_were_left_out_for_float16_do_not_keep_a_run_from_going_on(saved: Path, done: int) -> None:
    from kit.train import state

    trainer = _trainer()
    trainer.accelerator.scaler = _Scaler()
    _train(trainer, done)
    trainer.state.global_step = STEP
    state.save_state(saved, trainer, state.RandomState.capture("cpu"), evaluation_is_due=False)
    again = _trainer()
    again.accelerator.scaler = _Scaler()
    assert state.SavedState.read(saved, STEP).restore_training(again)
    assert again.lr_scheduler.last_epoch == done
    assert len(again.optimizer.state) == (4 if done else 0)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, _adafactor])
def test_it_comes_back_and_is_trained_on(saved: Path, kind: Any) -> None:
    from kit.train.state import SavedState

    _saved(saved, _trainer(kind))
    trainer = _trainer(kind)
    assert SavedState.read(saved, STEP).restore_training(trainer)
    _train(trainer, 1)


def test_any_other_value_is_refused_in_one_sentence_or_trained_on(saved: Path) -> None:
    from kit.train.state import STATE, SavedState

    original, source, refused = json.loads((saved / STATE).read_text("utf-8")), random.Random(0), 0  # noqa: S311
    for _ in range(MUTANTS):
        state = copy.deepcopy(original)
        holder, key = source.choice(_places(state))
        holder[key] = source.choice(_VALUES)
        (saved / STATE).write_text(json.dumps(state), encoding="utf-8")
        trainer = _trainer()
        try:
            SavedState.read(saved, STEP).restore_training(trainer)
        except ResumeError:
            refused += 1
            continue
        _train(trainer, 1)
    assert MUTANTS // 2 < refused < MUTANTS
