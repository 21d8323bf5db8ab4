"""The measurement measures: same rows for all, numbers that are counted, and a verdict that hides nothing."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from bench import bench_data
from bench.cpu_tables import data_lines
from bench.data_preparation import peers
from bench.data_preparation.measure import Run, run_program
from bench.data_preparation.rows import make_model, make_rows
from bench.data_preparation.table import table, verdict
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.dataset import load_file
from kit.plan.ledger import read

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    make_rows(folder / "rows.jsonl", 50)
    make_model(folder / "tokenizer", folder / "rows.jsonl")
    return folder


def _program(tool: str, bench: Path, folder: Path) -> Run:
    arguments = [str(bench / "rows.jsonl"), str(bench / "tokenizer"), "512", "1"]
    return run_program(tool, [sys.executable, str(peers.PROGRAMS / tool), *arguments], folder, 300)


def test_rows_are_the_same_each_time_and_can_be_trained_on(bench: Path, tmp_path: Path) -> None:
    make_rows(tmp_path / "again.jsonl", 50)
    assert (tmp_path / "again.jsonl").read_bytes() == (bench / "rows.jsonl").read_bytes()
    file = load_file(bench / "rows.jsonl", ChatTokenizer.load(str(bench / "tokenizer")), 512)
    assert [finding.severity for finding in file.findings] == ["ok"]
    assert len(file.rows) == 50


@pytest.mark.slow
@pytest.mark.parametrize("program", ["ours.py", "whole.py", "first_step.py"])
def test_our_programs_count_what_they_prepared(bench: Path, tmp_path: Path, program: str) -> None:
    run = _program(program, bench, tmp_path)
    assert run.failure == ""
    assert run.rows == 50
    assert run.tokens > run.trained > 50
    assert run.seconds > 0
    assert run.cpu_seconds > 0
    assert run.peak_bytes > 10_000_000


@pytest.mark.slow
def test_trl_prepares_the_same_tokens(bench: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="needs the libraries: make setup")
    ours, trl = _program("ours.py", bench, tmp_path), _program("trl_peer.py", bench, tmp_path)
    assert trl.failure == ""
    assert (trl.rows, trl.tokens, trl.trained) == (ours.rows, ours.tokens, ours.trained)


def test_a_program_that_fails_or_takes_too_long_is_said(tmp_path: Path) -> None:
    failed = run_program("x", [sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path, 60)
    assert failed.failure == "exit code 1: no such thing"
    slow = run_program("x", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, 0.5)
    assert slow.failure.startswith("took longer than")


RUNS = {
    10: [
        Run("this kit", 10, 100, 50, 1.0, 2.0, 1 << 20),
        Run("this kit, all of `make data`", 10, 100, 50, 2.0, 2.0, 1 << 20),
        Run("TRL", 10, 100, 50, 4.0, 2.0, 1 << 20),
        Run("LLaMA-Factory", failure="could not be installed"),
    ]
}


def test_the_table_has_a_line_for_each_tool_and_says_why_one_is_missing() -> None:
    lines = table(RUNS, {"TRL": "1.16.0"})
    assert len(lines) == 6
    assert len({line.count("|") for line in lines}) == 1
    assert "| 10 | TRL 1.16.0 | 2 | 4.0 | 2.0 | 1 MB | 100 | 50 | 4.0 times as fast |" in lines
    assert "could not be installed" in lines[-1]


def test_the_verdict_is_as_good_as_the_worst_size() -> None:
    words, ahead = verdict(RUNS)
    assert ahead
    assert words == "ahead of every measured tool; not measured: LLaMA-Factory at 10 rows"
    faster = {10: RUNS[10], 20: [RUNS[10][0], Run("TRL", 20, 1, 1, 0.5)]}
    assert verdict(faster) == ("behind TRL at 20 rows; not measured: LLaMA-Factory at 10 rows", False)


def _to(folder: Path) -> list[str]:
    return ["--ledger", str(folder / "ledger")]


@pytest.mark.slow
def test_the_command_measures_and_reports(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_data, "CACHE", tmp_path)
    (tmp_path / "tokenizer").symlink_to(bench / "tokenizer")
    (tmp_path / "rows-20000.jsonl").symlink_to(bench / "rows.jsonl")
    assert bench_data.main(["--rows", "30", "--tools", "ours", "--processes", "1", "--json", *_to(tmp_path)]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    (run,) = told["runs"]["30"]
    assert (run["tool"], run["rows"]) == ("this kit", 30)
    (ledger,) = (tmp_path / "ledger").iterdir()
    (record,) = read(ledger)
    assert (record.measurement, record.result["rows"]) == ("data/30/this kit", 30)
    assert (
        f"| 30 | this kit | {run['rows'] / run['seconds']:,.0f} |" in data_lines({record.measurement: record.result})[2]
    )


def test_wrong_use_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_data.main(["--rows", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err


def test_a_tool_that_cannot_be_installed_is_a_line_in_the_table(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_key: str) -> str:
        raise peers.SetupError("the package registry cannot be reached", "check the network")

    monkeypatch.setattr(bench_data, "CACHE", tmp_path)
    monkeypatch.setattr(bench_data, "python_for", refuse)
    (tmp_path / "tokenizer").symlink_to(bench / "tokenizer")
    (tmp_path / "rows-20000.jsonl").symlink_to(bench / "rows.jsonl")
    bench_data.main(["--rows", "30", "--tools", "llamafactory", *_to(tmp_path)])
    assert "the package registry cannot be reached; check the network" in capsys.readouterr().out
