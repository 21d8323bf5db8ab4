"""``--auto-fit=fast`` tries real updates before a run, and the run is the one with what was taken, to the last bit.

Only the seconds of what was tried are made up, and that the device refuses micro-batches of two rows.
"""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from kit.cli.command import call
from kit.commands import train
from kit.train import fastest as trying
from small_run import CONFIG, overrides, read_receipt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch", reason="needs the libraries: make setup")

ROWS, ACCUMULATION = "training.per_device_train_batch_size", "training.gradient_accumulation_steps"
REFUSED = 2  # rows at once
UPDATES = 2  # of each that is tried, to be quick
STEPS = 4 * UPDATES
SECONDS = {8: 4.0, 4: 2.0, 1: 9.0}


def _arguments(base: Path, output: Path, *, rows: int = 8) -> list[str]:
    """A run with dropout, so that its random numbers tell whether anything was drawn before it."""
    changes: dict[str, object] = {
        "training__max_steps": STEPS,
        "training__per_device_train_batch_size": rows,
        "training__gradient_accumulation_steps": 8 // rows,
        "training__save_steps": 2 * UPDATES,
        "lora__lora_dropout": 0.1,
        "data__val_file": None,
    }
    return [str(CONFIG), *overrides(base, output, **changes)]


@pytest.fixture
def trials() -> Iterator[list[int]]:
    """Make up how long what is tried takes; begin again in this process. Return the rows at once that were tried."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield _make_up(monkeypatch)


def _make_up(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    import trl

    from kit.train import timed_updates as trial

    tried: list[int] = []
    real, compute = trial.time_updates, trl.SFTTrainer.compute_loss

    def timed(base: Any, settings: Any, *more: Any) -> tuple[list[float], int]:
        tried.append(settings.training.per_device_train_batch_size)
        seconds, peak = real(base, settings, *more)
        assert len(seconds) == UPDATES - 1
        return [SECONDS[tried[-1]]] * len(seconds), peak

    def compute_or_refuse(self: Any, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        if model.training and len(inputs["input_ids"]) == REFUSED:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has a total capacity")
        return compute(self, model, inputs, *more, **named)

    monkeypatch.setattr(trial, "time_updates", timed)
    monkeypatch.setattr(trl.SFTTrainer, "compute_loss", compute_or_refuse)
    monkeypatch.setattr(train, "begin_again", lambda argv: call(train, argv))
    monkeypatch.setattr(trying, "UPDATES", UPDATES)
    return tried


@pytest.fixture(scope="module")
def fastest(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train with --auto-fit=fast; return the run's folder."""
    output = tmp_path_factory.mktemp("fastest") / "out"
    with pytest.MonkeyPatch.context() as monkeypatch:
        tried = _make_up(monkeypatch)
        assert call(train, [*_arguments(tiny_base, output), "--auto-fit=fast"]) == 0
    assert tried == [8, 4, 2, 1]
    return output


@pytest.fixture(scope="module")
def by_hand(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train with the settings that are taken, given by hand."""
    output = tmp_path_factory.mktemp("by-hand") / "out"
    assert call(train, _arguments(tiny_base, output, rows=4)) == 0
    return output


def test_the_receipt_tells_what_was_tried_and_what_was_taken(fastest: Path) -> None:
    receipt: Any = read_receipt(fastest)
    (fit,) = receipt["auto_fit"]
    assert (fit["from"], fit["to"]) == ({ROWS: 8, ACCUMULATION: 1}, {ROWS: 4, ACCUMULATION: 2})
    assert "100.0% faster" in fit["reason"]
    asked, four, two, one = fit["tried"]
    assert asked["to"] == {}
    assert [item["to"][ROWS] for item in (four, two, one)] == [4, 2, 1]
    assert four["seconds"] == [SECONDS[4]] * (UPDATES - 1)
    assert four["tokens_per_second"] == pytest.approx(2 * asked["tokens_per_second"])
    assert four["memory_bytes"] > 10**8
    assert two["problem"].startswith("CUDA out of memory")
    assert (two["seconds"], two["memory_bytes"], one["problem"]) == ([], None, None)
    assert receipt["config"]["training"]["per_device_train_batch_size"] == 4
    assert receipt["origins"][ROWS] == "--auto-fit, was 8"


def test_nothing_of_what_was_tried_is_in_the_run(fastest: Path, by_hand: Path) -> None:
    tried, plain = read_receipt(fastest), read_receipt(by_hand)
    for key in ("adapter_init_sha256", "loss_trace_sha256", "adapter_sha256", "steps_done", "tokens", "identity"):
        assert tried[key] == plain[key], key
    kept = {path.relative_to(by_hand) for path in by_hand.rglob("*")}
    assert {path.relative_to(fastest) for path in fastest.rglob("*")} == kept


def test_a_resumed_run_takes_what_was_taken_and_tries_nothing(
    fastest: Path, tiny_base: Path, tmp_path: Path, trials: list[int]
) -> None:
    output = tmp_path / "out"
    shutil.copytree(fastest, output)
    shutil.rmtree(output / "adapter")
    shutil.rmtree(output / f"checkpoints/checkpoint-{STEPS}")
    assert call(train, [*_arguments(tiny_base, output), "--resume", "auto", "--auto-fit=fast"]) == 0
    assert trials == []
    before, after = read_receipt(fastest), read_receipt(output)
    assert after["adapter_sha256"] == before["adapter_sha256"]
    assert after["auto_fit"] == before["auto_fit"]
    assert after["changes_allowed"] == []


def test_a_run_that_never_tried_goes_on_as_it_was(
    by_hand: Path, tiny_base: Path, tmp_path: Path, trials: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    shutil.copytree(by_hand, output)
    shutil.rmtree(output / "adapter")
    shutil.rmtree(output / f"checkpoints/checkpoint-{STEPS}")
    assert call(train, [*_arguments(tiny_base, output, rows=4), "--resume", "auto", "--auto-fit=fast"]) == 0
    assert trials == []
    assert "skipped: a resumed run keeps its settings" in capsys.readouterr().err
    assert read_receipt(output)["adapter_sha256"] == read_receipt(by_hand)["adapter_sha256"]


def test_what_was_asked_for_stays_where_it_is_the_fastest_and_a_resumed_run_knows(
    tiny_base: Path, tmp_path: Path, trials: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*_arguments(tiny_base, tmp_path / "out", rows=4), "--auto-fit=fast"]
    assert call(train, command) == 0
    assert trials[0] == 4
    assert "using the given settings" in capsys.readouterr().err
    receipt: Any = read_receipt(tmp_path / "out")
    (fit,) = receipt["auto_fit"]
    assert (fit["from"], fit["to"], len(fit["tried"])) == ({}, {}, 4)
    shutil.rmtree(tmp_path / "out/adapter")
    shutil.rmtree(tmp_path / "out/checkpoints")
    trials.clear()
    assert call(train, [*command, "--resume", "auto"]) == 0
    assert trials == []


def test_nothing_is_tried_that_was_not_asked_for(tiny_base: Path, tmp_path: Path, trials: list[int]) -> None:
    assert call(train, [*_arguments(tiny_base, tmp_path / "out"), "--auto-fit"]) == 0
    assert trials == []
    assert read_receipt(tmp_path / "out")["auto_fit"] == []


def test_a_signal_ends_the_trying_even_where_a_library_makes_a_failure_of_it(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kit.train import timed_updates as trial

    tried: list[int] = []

    def fails_of_a_signal(_base: Any, settings: Any, *_more: Any) -> None:
        tried.append(settings.training.per_device_train_batch_size)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException as exc:
            raise RuntimeError("an error of the backward pass") from exc

    monkeypatch.setattr(trial, "time_updates", fails_of_a_signal)
    monkeypatch.setattr(trying, "UPDATES", UPDATES)
    assert call(train, [*_arguments(tiny_base, tmp_path / "out"), "--auto-fit=fast"]) == 128 + signal.SIGTERM
    assert tried == [8]
    receipt = read_receipt(tmp_path / "out")
    assert (receipt["state"], receipt["auto_fit"], "begins_again" in receipt) == ("interrupted", [], False)


def test_the_option_knows_one_word(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call(train, [str(CONFIG), "--auto-fit=slow"])
    said = capsys.readouterr().err
    assert "--auto-fit=fast" in said
    assert "'slow'" in said
