"""A run that says it is under way is believed while its process lives, and no longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from kit.run_directory.history import read_run
from kit.run_directory.liveness import state_of
from kit.run_directory.process import describe_process, this_process
from written_run import write_run


def test_a_run_of_this_process_goes_on_however_long_it_is_silent(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", state="training", process=this_process())
    for name in ("run.json", "metrics.jsonl"):
        os.utime(folder / name, (0, 0))
    assert state_of(read_run(folder)) == "training"


def test_a_run_whose_process_is_gone_was_killed_although_it_has_just_written(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = describe_process(child.pid)
    folder = write_run(tmp_path / "run", state="training", process=process)
    assert state_of(read_run(folder)) == "training"
    child.kill()
    child.communicate()
    assert state_of(read_run(folder)) == "killed?"


def test_another_process_with_the_same_number_is_not_the_runs(tmp_path: Path) -> None:
    mine = this_process()
    ticks = mine["start_ticks"] and mine["start_ticks"] - 1
    process = {**mine, "created": mine["created"] - 3600, "start_ticks": ticks}
    assert state_of(read_run(write_run(tmp_path / "run", state="training", process=process))) == "killed?"


@pytest.mark.parametrize("offset", [10 * 86400.0, -10 * 86400.0])
def test_a_clock_that_was_set_does_not_make_a_living_run_a_dead_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: float
) -> None:
    process = this_process()
    if process["boot_id"] is None or process["start_ticks"] is None:
        pytest.skip("this system names neither its start nor a process's by anything but the clock")
    monkeypatch.setattr(psutil, "boot_time", lambda: process["machine_started"] + offset)
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: process["created"] + offset)
    folder = write_run(tmp_path / "run", state="training", process=process)
    for name in ("run.json", "metrics.jsonl"):
        os.utime(folder / name, (0, 0))
    assert state_of(read_run(folder)) == "training"


def test_without_a_boot_id_the_clock_decides(tmp_path: Path) -> None:
    process = {**this_process(), "boot_id": None, "start_ticks": None}
    folder = write_run(tmp_path / "run", state="training", process=process)
    for name in ("run.json", "metrics.jsonl"):
        os.utime(folder / name, (0, 0))
    assert state_of(read_run(folder)) == "training"
    gone = {**process, "created": process["created"] - 3600}
    assert state_of(read_run(write_run(tmp_path / "other", state="training", process=gone))) == "killed?"


@pytest.mark.parametrize(
    "process",
    [None, {}, "text", {"namespace": "pid:[1]"}, {"machine_started": 5.0, "boot_id": "another"}, {"pid": "7"}],
    ids=["none", "empty", "text", "container", "before a restart", "no number"],
)
def test_a_process_that_cannot_be_seen_is_believed_while_it_writes(tmp_path: Path, process: object) -> None:
    known = {**this_process(), "pid": 2**30, **process} if isinstance(process, dict) and process else process
    folder = write_run(tmp_path / "run", state="started", process=known)
    assert state_of(read_run(folder)) == "started"
    for name in ("run.json", "metrics.jsonl"):
        os.utime(folder / name, (0, 0))
    assert state_of(read_run(folder)) == "killed?"


@pytest.mark.parametrize("state", ["finished", "interrupted", "failed"])
def test_a_run_that_said_its_end_is_what_it_said(tmp_path: Path, state: str) -> None:
    assert state_of(read_run(write_run(tmp_path / "run", state=state))) == state
