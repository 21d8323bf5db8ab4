"""A run in a line, whatever its folder holds."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from kit.run_directory.history import read_run
from kit.runs.summary import summarise
from kit.runs.table import COLUMNS
from written_run import write_run


def test_a_finished_run(tmp_path: Path) -> None:
    summary = summarise(read_run(write_run(tmp_path / "first", evaluations=[(50, 0.6), (100, 0.7)])))
    assert (summary.name, summary.state, summary.steps, summary.planned_steps) == ("first", "finished", 100, 100)
    assert (summary.eval_loss, summary.lowest_eval_loss) == (0.7, 0.6)
    assert (summary.config, summary.data, summary.rows) == ("configs/training_config_demo.yaml", "gone.jsonl", 40)
    assert (summary.seconds, summary.tokens_per_second, summary.peak_memory_bytes) == (61.5, 2000.0, 1_250_000_000)


def test_the_loss_is_the_last_one_that_was_written(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", loss=lambda step: 2.0 if step == 1 else None)
    assert summarise(read_run(folder)).loss == 2.0


def test_the_time_of_a_run_under_way_is_that_of_its_newest_step(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", state="training", seconds=9.0)
    assert summarise(read_run(folder)).seconds == 50.0


def test_a_loss_that_is_no_number_is_not_passed_over(tmp_path: Path) -> None:
    summary = summarise(read_run(write_run(tmp_path / "run", loss=lambda step: 1.0 if step < 9 else math.nan)))
    assert summary.loss is not None
    assert math.isnan(summary.loss)


def test_a_run_that_has_not_logged_yet_has_nothing_to_say(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", state="started", seconds=None, peak_memory_bytes=None)
    (folder / "metrics.jsonl").unlink()
    summary = summarise(read_run(folder))
    assert (summary.steps, summary.loss, summary.eval_loss, summary.seconds) == (0, None, None, None)


@pytest.mark.parametrize("value", ["text", True, [1], {"a": 1}, None])
def test_a_receipt_that_holds_other_things_is_still_shown(tmp_path: Path, value: object) -> None:
    facts = dict.fromkeys(("steps", "seconds", "peak_memory_bytes", "data", "origins", "started_at", "process"), value)
    folder = write_run(tmp_path / "run", line={"tokens": value, "seconds": value}, **facts)
    assert summarise(read_run(folder)).name == "run"


def test_a_date_beyond_the_calendar_is_left_out(tmp_path: Path) -> None:
    run = summarise(read_run(write_run(tmp_path / "a", started_at="9999-12-31T23:59:59-23:59")))
    assert COLUMNS["started"][1](run) == "-"
