"""Two loss traces: the step where they part is named, and how far they come apart is measured."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from kit.run_directory.history import read_run
from kit.runs.traces import compare_evaluations, compare_losses, compare_traces, loss_trace
from written_run import write_run

NAN, INF = math.nan, math.inf


def test_equal_traces_have_no_gap() -> None:
    found = compare_traces({1: 2.5, 2: NAN, 3: INF}, {1: 2.5, 2: NAN, 3: INF})
    assert found.is_equal
    assert (found.compared, found.first_gap, found.largest_absolute, found.largest_relative) == (3, None, None, None)


def test_a_last_bit_is_a_difference() -> None:
    found = compare_traces({1: 2.5, 2: 1.0}, {1: 2.5, 2: math.nextafter(1.0, 2)})
    assert not found.is_equal
    assert found.first_gap is not None
    assert found.first_gap.step == 2


def test_the_first_gap_and_the_largest_ones_are_told_apart() -> None:
    found = compare_traces({1: 1.0, 2: 100.0, 3: 0.01}, {1: 1.001, 2: 103.0, 3: 0.02})
    steps = [gap.step for gap in (found.first_gap, found.largest_absolute, found.largest_relative) if gap]
    assert steps == [1, 2, 3]
    assert found.gaps[1].absolute == pytest.approx(3.0)
    assert found.gaps[2].relative == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("one", "other"), [(NAN, 1.0), (1.0, NAN), (INF, 1.0), (INF, -INF), (INF, NAN), (1e308, -1e308)]
)
def test_what_is_no_number_on_one_side_is_infinitely_far(one: float, other: float) -> None:
    found = compare_traces({1: one}, {1: other})
    assert found.first_gap is not None
    assert (found.first_gap.absolute, found.first_gap.relative) == (INF, INF)


def test_steps_that_one_side_lacks_are_listed_and_not_compared() -> None:
    found = compare_traces({1: 1.0, 2: 1.0}, {2: 1.0, 4: 1.0, 3: 1.0})
    assert not found.is_equal
    assert (found.compared, found.gaps, found.only_first, found.only_second) == (1, (), (1,), (3, 4))


def test_the_first_step_beyond_a_tolerance_is_beyond_the_relative_and_the_absolute_one() -> None:
    found = compare_traces({1: 1e-9, 2: 1.0, 3: 1.0}, {1: 2e-9, 2: 1.001, 3: 1.1})
    beyond = found.first_beyond(relative=0.01, absolute=1e-6)
    assert beyond is not None
    assert beyond.step == 3
    assert found.first_beyond(relative=0.2, absolute=1e-6) is None
    without = found.first_beyond(relative=0.01)
    assert without is not None
    assert without.step == 1


def test_runs_are_compared_by_what_they_logged(tmp_path: Path) -> None:
    first = read_run(write_run(tmp_path / "a", done=4, evaluations=((2, 1.0), (4, 0.5))))
    second = read_run(
        write_run(
            tmp_path / "b", done=4, loss=lambda step: None if step == 3 else 1.0, evaluations=((2, 1.0), (4, 0.75))
        )
    )
    assert list(loss_trace(second)) == [1, 2, 4]
    losses, evaluations = compare_losses(first, second), compare_evaluations(first, second)
    assert ([gap.step for gap in losses.gaps], losses.only_first) == ([1, 2, 4], (3,))
    assert [(gap.step, gap.absolute) for gap in evaluations.gaps] == [(4, 0.25)]


def test_a_null_in_the_metrics_is_a_loss_that_was_no_number(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", done=2, evaluations=())
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    (folder / "metrics.jsonl").write_text(text + '{"step": 3, "loss": null}\n{"step": 4, "loss": "high"}\n')
    trace = loss_trace(read_run(folder))
    assert list(trace) == [1, 2, 3]
    assert math.isnan(trace[3])
