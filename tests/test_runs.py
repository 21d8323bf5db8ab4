"""`make runs`: the table, its order, its width."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest

from kit.cli.command import call
from kit.commands import runs
from kit.run_directory.history import read_run
from kit.runs.summary import summarise
from kit.runs.table import sort_runs, table_of
from written_run import write_run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    write_run(tmp_path / "good", loss=lambda _: 0.5)
    write_run(tmp_path / "bad", loss=lambda _: 2.5, state="failed", started_at="2026-11-24T10:00:00+00:00")
    write_run(tmp_path / "broken", loss=lambda _: math.nan)
    return tmp_path


def names(outputs: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert call(runs, ["--outputs", str(outputs), "--json", *arguments]) == 0
    return [run["name"] for run in json.loads(capsys.readouterr().out)["runs"]]


def test_the_table_shows_every_run_with_its_state(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(runs, ["--outputs", str(outputs)]) == 0
    rows = {line.split()[0]: line.split()[1:3] for line in capsys.readouterr().out.splitlines()}
    assert rows["good"] == ["finished", "0.5000"]
    assert rows["bad"] == ["failed", "2.5000"]
    assert rows["broken"] == ["finished", "NaN"]


def test_runs_are_sorted_and_what_has_no_value_comes_last(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert names(outputs, capsys, "--sort", "loss") == ["good", "bad", "broken"]
    assert names(outputs, capsys, "--sort", "loss", "--reverse") == ["bad", "good", "broken"]
    assert names(outputs, capsys)[-1] == "bad"


def test_json_has_no_nan_in_it(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(runs, ["--outputs", str(outputs), "--json"])
    text = capsys.readouterr().out
    broken = next(run for run in json.loads(text)["runs"] if run["name"] == "broken")
    assert "NaN" not in text
    assert (broken["loss"], broken["is_finite"]) == (None, False)


def test_a_folder_that_is_no_run_is_named_and_hides_no_other(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (outputs / "torn").mkdir()
    (outputs / "torn" / "run.json").write_text("{")
    assert call(runs, ["--outputs", str(outputs)]) == 0
    said = capsys.readouterr()
    assert "torn/run.json: is not a receipt" in said.err
    assert "good" in said.out


def test_where_there_is_no_run_it_says_how_to_get_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(runs, ["--outputs", str(tmp_path / "nowhere")]) == 0
    assert "make demo" in capsys.readouterr().err


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 400])
def test_a_narrow_terminal_gets_fewer_columns_and_is_told_which(outputs: Path, width: int) -> None:
    from rich.console import Console

    found = sort_runs([summarise(read_run(folder)) for folder in outputs.iterdir()], "name")
    table, left_out = table_of(found, width)
    console = Console(width=width, record=True)
    with console.capture() as shown:
        console.print(table)
    lines = shown.get().splitlines()
    assert len(lines) == 1 + len(found)  # nothing is wrapped
    assert ("data" in left_out) == (width < 150)
    assert all(any(run.name in line for line in lines) for run in found)
