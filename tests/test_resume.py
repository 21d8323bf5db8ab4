"""Stopped runs go on, through the real command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kit.cli.command import call
from kit.commands import train
from kit.files.folder_lock import FolderLock
from kit.run_directory import checkpoints
from new_key import DEFAULT, KEY, kit_with_new_key
from small_run import CONFIG, overrides, read_metrics, read_receipt

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
CHANGES = {"training__max_steps": 6, "training__save_steps": 2, "training__eval_steps": 3}


def _train(base: Path, output: Path, *options: str, **changes: object) -> int:
    return call(train, [str(CONFIG), *overrides(base, output, **{**CHANGES, **changes}), *options])


@pytest.fixture(scope="module")
def whole(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "out"
    assert _train(tiny_base, output) == 0
    return output


def _as_killed_after(whole: Path, output: Path, step: int) -> Path:
    """Copy a run as it was when it died after the save at ``step``, with lines of steps that were not saved."""
    shutil.copytree(whole, output)
    shutil.rmtree(output / "adapter")
    for saved, folder in checkpoints.folders(output / "checkpoints"):
        if saved > step:
            shutil.rmtree(folder)
    receipt = read_receipt(output)
    receipt["state"] = receipt["sessions"][-1]["state"] = "running"  # type: ignore[index]
    (output / "run.json").write_text(json.dumps(receipt), encoding="utf-8")
    with (output / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 7, "lo')
    return output


def _curve(output: Path) -> list[dict[str, float]]:
    beside = {"seconds", "memory_bytes"}
    return [{key: value for key, value in line.items() if key not in beside} for line in read_metrics(output)]


def test_a_resumed_run_ends_as_one_that_never_stopped(whole: Path, tiny_base: Path, tmp_path: Path) -> None:
    output = _as_killed_after(whole, tmp_path / "out", 2)
    assert _train(tiny_base, output, "--resume", "auto") == 0
    for name in ("adapter/adapter_model.safetensors", "checkpoints/checkpoint-6/optimizer.safetensors"):
        assert (output / name).read_bytes() == (whole / name).read_bytes()
    assert _curve(output) == _curve(whole)
    mine, theirs = read_receipt(output), read_receipt(whole)
    for key in ("adapter_sha256", "adapter_init_sha256", "loss_trace_sha256", "tokens", "steps_done", "eval_loss"):
        assert mine[key] == theirs[key], key
    assert [entry["name"] for entry in mine["checkpoints"]] == [entry["name"] for entry in theirs["checkpoints"]]  # type: ignore[attr-defined]
    sessions = mine["sessions"]
    assert [(each["state"], each["from_step"]) for each in sessions] == [("killed", 0), ("finished", 2)]  # type: ignore[attr-defined]
    assert sorted(path.name for path in output.iterdir()) == sorted(path.name for path in whole.iterdir())


def test_a_key_that_came_after_a_run_was_stopped_changes_nothing_of_it(
    whole: Path, tiny_base: Path, tmp_path: Path
) -> None:
    """Each new key stranded every run that had been begun before."""
    output = _as_killed_after(whole, tmp_path / "out", 2)
    (tmp_path / "kit").mkdir()
    command = [sys.executable, str(kit_with_new_key(tmp_path / "kit") / "train.py"), str(CONFIG), "--resume", "auto"]
    command += overrides(tiny_base, output, **CHANGES)
    told = subprocess.run([*command, f"{KEY}=0.5"], capture_output=True, text=True, check=False, timeout=300)
    assert (told.returncode, f"{KEY} is 0.5 but was {DEFAULT}" in told.stderr) == (1, True), told.stderr
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert told.returncode == 0, told.stderr
    assert read_receipt(output)["adapter_sha256"] == read_receipt(whole)["adapter_sha256"]


def test_when_it_is_evaluated_changes_nothing_of_what_is_learnt(whole: Path, tiny_base: Path, tmp_path: Path) -> None:
    """Each evaluation drew a number: a run that was resumed with others was another adapter, without a word."""
    output = _as_killed_after(whole, tmp_path / "out", 2)
    assert _train(tiny_base, output, "--resume", "auto", training__eval_steps=1) == 0
    assert len([line for line in read_metrics(output) if "eval_loss" in line]) > 3
    assert read_receipt(output)["adapter_sha256"] == read_receipt(whole)["adapter_sha256"]


def test_a_checkpoint_of_another_folder_can_be_gone_on_from(whole: Path, tiny_base: Path, tmp_path: Path) -> None:
    path = str(whole / "checkpoints/checkpoint-4")
    assert _train(tiny_base, tmp_path / "out", "--resume", path) == 0
    assert read_receipt(tmp_path / "out")["adapter_sha256"] == read_receipt(whole)["adapter_sha256"]


def test_what_changed_is_refused_by_name_and_recorded_where_it_is_allowed(
    whole: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = _as_killed_after(whole, tmp_path / "out", 4)
    before = (output / "run.json").read_bytes()
    assert _train(tiny_base, output, "--resume", "auto", training__learning_rate=1e-4) == 1
    assert "training.learning_rate is 0.0001 but was" in capsys.readouterr().err
    assert (output / "run.json").read_bytes() == before
    allowed = ["--resume", "auto", "--allow-changed", "training.learning_rate"]
    assert _train(tiny_base, output, *allowed, training__learning_rate=1e-4) == 0
    (entry,) = read_receipt(output)["changes_allowed"]  # type: ignore[misc]
    assert (entry["key"], entry["is"], entry["step"]) == ("training.learning_rate", 1e-4, 4)
    rates = [line["learning_rate"] for line in read_metrics(output) if "loss" in line]
    assert rates[3] > 1e-4 > rates[4] > rates[5]


def test_a_changed_schedule_has_its_rate_from_the_first_resumed_step(
    whole: Path, tiny_base: Path, tmp_path: Path
) -> None:
    output = _as_killed_after(whole, tmp_path / "out", 4)
    keys = ("training.lr_scheduler_type", "training.warmup_ratio")
    allowed = [word for key in keys for word in ("--allow-changed", key)]
    changes = {"training__lr_scheduler_type": "constant", "training__warmup_ratio": 0.0}
    assert _train(tiny_base, output, "--resume", "auto", *allowed, **changes) == 0
    rates = [line["learning_rate"] for line in read_metrics(output) if "loss" in line]
    config = read_receipt(output)["config"]
    assert rates[4:] == [config["training"]["learning_rate"]] * 2  # type: ignore[index]
    assert rates[3] < rates[4]


def test_another_number_of_threads_is_said_and_recorded_and_a_run_that_goes_on_keeps_it(
    whole: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another number adds up in another order: it was a third adapter without a word, and no rerun came out equal."""
    import torch

    output, threads = _as_killed_after(whole, tmp_path / "out", 2), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert _train(tiny_base, output, "--resume", "auto") == 0
    finally:
        torch.set_num_threads(threads)
    assert f"threads is {threads + 1}, was {threads}" in capsys.readouterr().err
    change = {"step": 2, "key": "threads", "was": threads, "is": threads + 1}
    assert read_receipt(output)["compute_changes"] == [change]
    again = _as_killed_after(output, tmp_path / "again", 4)
    assert _train(tiny_base, again, "--resume", "auto") == 0
    back = {"step": 4, "key": "threads", "was": threads + 1, "is": threads}
    assert read_receipt(again)["compute_changes"] == [change, back]


def test_a_checkpoint_is_found_by_a_relative_path_as_by_a_whole_one(
    whole: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From where it stands a checkpoint's path does not show its run, in which what --auto-fit took is written."""
    output = _as_killed_after(whole, tmp_path / "out", 4)
    receipt = read_receipt(output)
    before, after = (
        {"training.per_device_train_batch_size": rows, "training.gradient_accumulation_steps": 16 // rows}
        for rows in (4, 2)
    )
    receipt["auto_fit"] = [{"from": before, "to": after, "reason": "it was so", "measured_bytes": None}]
    (output / "run.json").write_text(json.dumps(receipt), encoding="utf-8")
    monkeypatch.chdir(output / "checkpoints")
    given = ["--resume", "checkpoint-4", "--auto-fit", "--require", "h100"]  # refused before it trains
    changes = {"training__per_device_train_batch_size": 4, "training__gradient_accumulation_steps": 4}
    assert _train(tiny_base, output, *given, **changes) == 1
    assert "because it was so" in capsys.readouterr().err


def test_a_finished_run_is_left_alone(whole: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert _train(tiny_base, whole, "--resume", "auto") == 0
    assert "this run is finished" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in before if path != whole} == {
        path: at for path, at in before.items() if path != whole
    }


def test_a_run_killed_before_its_adapter_was_saved_only_saves_it(whole: Path, tiny_base: Path, tmp_path: Path) -> None:
    output = _as_killed_after(whole, tmp_path / "out", 6)
    assert _train(tiny_base, output, "--resume", "auto") == 0
    assert read_receipt(output)["adapter_sha256"] == read_receipt(whole)["adapter_sha256"]
    assert _curve(output) == _curve(whole)


def test_a_damaged_newest_checkpoint_costs_its_steps_and_nothing_else(
    whole: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = _as_killed_after(whole, tmp_path / "out", 6)
    damaged = output / "checkpoints/checkpoint-6/optimizer.safetensors"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 4
    damaged.write_bytes(content)
    assert _train(tiny_base, output, "--resume", "auto") == 0
    told = capsys.readouterr().err
    assert "checkpoint-6: optimizer.safetensors changed since it was saved" in told
    assert "resuming after step 4" in told
    assert read_receipt(output)["adapter_sha256"] == read_receipt(whole)["adapter_sha256"]


def test_two_runs_in_one_folder_are_refused(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = FolderLock(tmp_path / "out")
    lock.acquire()
    try:
        assert _train(tiny_base, tmp_path / "out") == 1
    finally:
        lock.release()
    assert "another run is using this directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--resume", "nowhere"], "no such directory"), (["--resume", ".", "--overwrite"], "starts over")],
)
def test_wrong_use_is_one_sentence(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(train, options) == 2
    assert told in capsys.readouterr().err
