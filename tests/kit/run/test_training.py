"""A run's beginning and end, as its receipt tells them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from kit.run import training
from kit.run.receipt import Receipt
from kit.run.resume import Start

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TOKEN = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567"


class Failing:
    """A part of a run that fails as the hub's client does: with the token it was given in the message."""

    def __init__(self, *_: Any) -> None:
        pass

    def run(self) -> int:
        raise OSError(f"401 for https://me:{TOKEN}@host/model with {TOKEN}")


def test_what_a_run_failed_of_is_written_down_without_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "_begin", lambda *_: Receipt(tmp_path))
    monkeypatch.setattr(training, "Part", Failing)
    wandb, logged = SimpleNamespace(mode="offline", project=None, entity=None), SimpleNamespace(report_to="none")
    settings = SimpleNamespace(run_directory=tmp_path, wandb=wandb, training=logged)
    job: Any = SimpleNamespace(resolved=SimpleNamespace(settings=settings))
    assert training.run(job, []) == 1
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert json.loads(text)["error"] == "OSError: 401 for https://[redacted]@host/model with [redacted]"
    assert TOKEN not in text + capsys.readouterr().err


def test_a_run_that_goes_on_vouches_for_the_checkpoints_that_are_still_its_own(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        (tmp_path / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
    entries = [{"name": f"checkpoint-{step}", "step": step} for step in (1, 2, 4, 6)]
    start = Start(earlier={"checkpoints": [*entries, {"name": "made up"}]})
    kept = training._still_there(start, tmp_path, 4)
    assert [entry["step"] for entry in kept] == [2, 4]  # 1 is gone, 6 is not gone on from
    assert training._still_there(Start(), tmp_path, 0) == []
