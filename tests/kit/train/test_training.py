"""A run's beginning and end, as its receipt tells them."""

from __future__ import annotations

import json
import os
import signal
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.run_directory.checkpoints import Checkpoint, ResumeError
from kit.run_directory.receipt import Receipt
from kit.supervise.stop import StoppedError, StopRequest
from kit.train import training
from kit.train.auto_fit import RestartError
from kit.train.resume import StartPoint
from kit.train.session import TrainingSession

TOKEN = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567"


class Failing:
    """A part of a run that fails as the hub's client does: with the token it was given in the message."""

    def __init__(self, *_: Any) -> None:
        pass

    def run(self) -> int:
        raise OSError(f"401 for https://me:{TOKEN}@host/model with {TOKEN}")


def _run(part: type, folder: Path, monkeypatch: pytest.MonkeyPatch, begin: Any = Receipt) -> int:
    """Run a job that is nothing but its part."""
    monkeypatch.setattr(training, "_begin", lambda *_: begin(folder))
    monkeypatch.setattr(training, "TrainingSession", part)
    wandb, logged = SimpleNamespace(mode="offline", project=None, entity=None), SimpleNamespace(report_to="none")
    settings = SimpleNamespace(run_directory=folder, wandb=wandb, training=logged)
    job: Any = SimpleNamespace(resolved=SimpleNamespace(settings=settings), candidates=())
    return training.run(job, [])


def test_what_a_run_failed_of_is_written_down_without_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(Failing, tmp_path, monkeypatch) == 1
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert json.loads(text)["error"] == "OSError: 401 for https://[redacted]@host/model with [redacted]"
    assert TOKEN not in text + capsys.readouterr().err


class Broken:
    """A part that dies of a bug."""

    def __init__(self, *_: Any) -> None:
        pass

    def run(self) -> int:
        raise KeyError("labels")


def test_a_bug_is_one_sentence_with_its_traceback_in_the_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(Broken, tmp_path, monkeypatch) == 1
    receipt = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (receipt["state"], receipt["error"], receipt["error_file"]) == ("failed", "KeyError: 'labels'", "error.txt")
    assert receipt["sessions"][-1]["error"] == "KeyError: 'labels'"
    said = capsys.readouterr().err
    assert "KeyError: 'labels'" in said
    assert f"the traceback is in {tmp_path / 'error.txt'}" in said
    assert "Traceback" not in said
    assert 'raise KeyError("labels")' in (tmp_path / "error.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("checkpoint", [None, 2])
def test_a_run_that_begins_or_goes_on_leaves_no_traceback_of_an_earlier_session(
    tmp_path: Path, checkpoint: int | None
) -> None:
    (tmp_path / "error.txt").touch()
    start = StartPoint()
    if checkpoint:
        folder = tmp_path / "checkpoints" / f"checkpoint-{checkpoint}"
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").touch()
        start = StartPoint(checkpoint=Checkpoint(folder, checkpoint, {}, {}, 0, ""))
    training._prepare_folder(tmp_path, start)
    assert not (tmp_path / "error.txt").exists()


LINES = [
    {"step": 1, "loss": 2.5, "grad_norm": 1.0, "seconds": 0.5},
    {"step": 2, "loss": 2.0},
    {"step": 2, "eval_loss": 2.25},
]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (LINES, ""),
        (LINES[:1], "ends at step 1, but the checkpoint is at step 2"),
        *(([*LINES[:2], {"step": 2, key: value}], ":3: not a valid metrics line up to step 2")
          for key in ("loss", "grad_norm", "seconds", "eval_loss") for value in ("2.5", [1], 10**400, True)),
        *(([{"step": step, "loss": 1.0}, *LINES], ":1: not a valid metrics line") for step in (-1, 0, 3, 1.5)),
    ],
)  # fmt: skip
def test_curves_that_a_checkpoint_brings_are_those_of_its_steps(tmp_path: Path, lines: list[Any], told: str) -> None:
    """Anything else that parses ended the run in an exception, once all was loaded, or was a gap in the curves."""
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    checkpoint = Checkpoint(tmp_path, 2, {}, {}, 0, "")
    with pytest.raises(ResumeError, match=told) if told else nullcontext():
        training._check_metrics(checkpoint, 2)


class CutOff:
    """A part that a signal stops within a library that makes a failure of its own of it."""

    def __init__(self, *_: Any) -> None:
        pass

    def run(self) -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        except StoppedError:
            os.environ.pop("HF_HUB_OFFLINE")  # as accelerate does, which empties them for a moment
            raise AssertionError("the stack of modes is not what it was") from None  # as torch does
        raise RuntimeError("no signal came")


def test_a_stop_that_a_library_turned_into_a_failure_is_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(CutOff, tmp_path, monkeypatch) == 128 + signal.SIGTERM
    receipt = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (receipt["state"], receipt["signal"]) == ("interrupted", signal.SIGTERM)
    assert "error" not in receipt
    assert "nothing is lost" in "".join(capsys.readouterr())


def test_a_signal_that_comes_as_the_receipt_is_begun_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It cut in before the receipt was known to whoever completes it, which stayed at ``started``."""

    def begin(folder: Path) -> Receipt:
        receipt = Receipt(folder)
        signal.raise_signal(signal.SIGHUP)
        return receipt

    assert _run(CutOff, tmp_path, monkeypatch, begin) == 128 + signal.SIGHUP
    receipt = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (receipt["state"], receipt["signal"]) == ("interrupted", signal.SIGHUP)
    assert "SIGHUP: stopping; nothing trained yet" in capfd.readouterr().err


class BeginningAgain:
    """A part whose rehearsal is refused while a signal comes: what would begin again had taken the wish with it."""

    def __init__(self, _job: Any, _receipt: Any, stop: StopRequest, _curves: Any) -> None:
        self.stop = stop

    def run(self) -> int:
        self.stop.defer_signals()
        signal.raise_signal(signal.SIGTERM)
        raise RestartError


def test_a_run_that_is_to_begin_again_and_was_asked_to_stop_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_again(*_: Any) -> None:
        raise RestartError

    monkeypatch.setattr(training, "_fail", begin_again)
    assert _run(BeginningAgain, tmp_path, monkeypatch) == 128 + signal.SIGTERM
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["state"] == "interrupted"


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        (7, "checkpoint in outputs/run/checkpoints"),
        (4, "last checkpoint: step 4"),
        (0, "no checkpoint"),
    ],
)
def test_a_stopped_run_names_no_checkpoint_that_it_could_not_save(saved: int, told: str) -> None:
    """An adapter that holds NaN is not saved, and was said to be."""
    part: Any = TrainingSession.__new__(TrainingSession)
    part.trainer, part.saved_step = SimpleNamespace(state=SimpleNamespace(global_step=7)), saved
    part.folder = "outputs/run"
    assert told in part._resume_point()


class FailingWhileStopped:
    """A part that fails by itself after a signal was kept."""

    def __init__(self, _job: Any, _receipt: Any, stop: StopRequest, _curves: Any) -> None:
        self.stop = stop

    def run(self) -> int:
        self.stop.defer_signals()
        signal.raise_signal(signal.SIGTERM)
        raise OSError("the disk is gone")


def test_a_failure_while_a_stop_is_under_way_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _run(FailingWhileStopped, tmp_path, monkeypatch) == 1
    receipt = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (receipt["state"], receipt["error"]) == ("failed", "OSError: the disk is gone")


def test_a_run_that_goes_on_vouches_for_the_checkpoints_that_are_still_its_own(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        (tmp_path / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
    entries = [{"name": f"checkpoint-{step}", "step": step} for step in (1, 2, 4, 6)]
    start = StartPoint(earlier={"checkpoints": [*entries, {"name": "made up"}]})
    kept = training._still_there(start, tmp_path, 4)
    assert [entry["step"] for entry in kept] == [2, 4]  # 1 is gone, 6 is not gone on from
    assert training._still_there(StartPoint(), tmp_path, 0) == []
