"""`make prove` works from end to end at a CPU's scale, so that it works on the day there is a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from bench import prove
from bench.goals import goal_lines
from bench.known import devices
from bench.tables import speed_table
from kit.cli.interpreter import PROJECT_ROOT
from kit.plan.ledger import read, read_all

if TYPE_CHECKING:
    from pathlib import Path


def _prove(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.prove", *arguments]
    return subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.slow
def test_all_that_a_cpu_can_measure_is_measured_and_becomes_tables(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the libraries: make setup")
    told = ("--scale", "small", "--ledger", str(tmp_path / "ledger"), "--base", str(tmp_path / "base"))
    began = time.monotonic()
    done = _prove(*told, "--limit", "400")
    print(f"took {time.monotonic() - began:.0f} s")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "ledger").iterdir()
    records = read(path)
    assert {record.measurement: record.result["failed"] for record in records if "failed" in record.result} == {}
    kinds = {record.measurement.split("/")[0] for record in records}
    assert kinds == {
        *("base", "ceiling", "memory", "speed", "parity", "profile", "first run", "loading"),
        *("evaluation", "generation"),
    }
    (device,) = devices(records, "small")
    assert "| kit defaults | not measured" not in "\n".join(speed_table(device, "full"))
    assert any("times trl's own defaults: " in line and "not measured" not in line for line in goal_lines(device))
    first_run = next(record.result for record in records if record.measurement == "first run")
    assert first_run["adapters"]["equal"]
    again = _prove(*told)
    assert again.stderr.count("measured before") == len(records)
    assert read(path) == records


def test_the_full_scale_is_refused_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    if prove.main(["--list"]) == 0 and "needs an NVIDIA GPU" not in capsys.readouterr().out:
        pytest.skip("there is a GPU here")
    assert prove.main(["--scale", "7b"]) == 2
    assert "needs an NVIDIA GPU" in capsys.readouterr().err


def test_the_list_names_what_there_is_and_measures_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prove.main(["--list", "--scale", "small", "--ledger", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "first run: Train, evaluate, stop, resume: is the adapter the same?\n" in out
    assert "peer/full/Unsloth: Is the peer faster? (needs an NVIDIA GPU)" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", ["0", "-1", "nan"])
def test_no_time_is_wrong_use(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert prove.main([f"--limit={limit}"]) == 2
    assert "--limit must be a number of seconds above 0" in capsys.readouterr().err


def test_where_nothing_can_be_measured_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prove.main(["--scale", "small", "--only", "peer", "--ledger", str(tmp_path)]) == 0
    assert capsys.readouterr().err.count("needs an NVIDIA GPU") == 4
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.access", lambda path, _mode: path != tmp_path)
    assert prove.main(["--scale", "small", "--ledger", str(tmp_path / "new")]) == 2
    assert "is not writable for this user" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_known_of_a_gpu_is_shown_with_goals_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prove, "_OUTPUT", tmp_path / "prove")
    known = next(device for device in devices(read_all()) if "H100" in device.name)
    fastest = known.result("speed/full/no checkpointing, dropout 0")
    assert fastest is not None
    prove.show(known)
    out = capsys.readouterr().out
    assert f"| no checkpointing, dropout 0 | {fastest['tokens_per_second']:,.0f} |" in out
    assert "next bottleneck: " in out
    assert "\n".join(goal_lines(known)) in out
    assert (tmp_path / "prove" / "speed.png").stat().st_size > 1000


def test_a_name_that_nothing_begins_with_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert prove.main(["--only", "sped"]) == 2
    assert "nothing begins with sped" in capsys.readouterr().err


@pytest.mark.slow
def test_it_answers_in_json(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the libraries: make setup")
    done = _prove("--scale", "small", "--only", "ceiling", "--ledger", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["measurements"]
    assert found["name"] == "ceiling"
    assert found["record"]["result"]["matmul_flop_per_second"] > 0
