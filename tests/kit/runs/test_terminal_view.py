"""What `make watch` knows of a run, and the plot it draws of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.runs.terminal_view import RunProgress, figures, plain_line, plot, plotted


def line(step: int, **more: object) -> dict[str, object]:
    return {
        "step": step,
        "loss": 1.0,
        "learning_rate": 2e-4,
        "grad_norm": 0.5,
        "tokens": 100 * step,
        "seconds": step,
        **more,
    }


def test_the_time_left_follows_the_newest_steps() -> None:
    course = RunProgress(planned_steps=200)
    course.add([line(step, seconds=10.0 * step) for step in range(1, 51)])
    course.add([line(step, seconds=500.0 + 2.0 * (step - 50)) for step in range(51, 101)])
    assert course.seconds_left == 200.0  # 100 steps at the newer 2 s, not at the older 10
    assert course.tokens_per_second == 50.0


def test_nothing_is_said_of_the_time_left_before_it_is_known() -> None:
    course = RunProgress(planned_steps=None)
    assert dict(figures(course))["time left"] == "not known yet"
    course.add([line(1)])
    assert course.seconds_left is None
    course.planned_steps = 3
    assert course.seconds_left == 2.0


def test_evaluations_are_no_steps() -> None:
    course = RunProgress(planned_steps=10)
    course.add([line(4), {"step": 4, "eval_loss": 0.25}])
    assert course.step == 4
    assert dict(figures(course))["validation"] == "0.2500 at step 4"
    assert plain_line(course).startswith("step      4/10  loss 1.0000")


def test_a_broken_loss_is_said_in_words() -> None:
    course = RunProgress()
    course.add([line(1, loss=math.nan, grad_norm=None, learning_rate="text")])
    shown = dict(figures(course))
    assert (shown["loss"], shown["gradient norm"], shown["learning rate"]) == ("not finite", "-", "-")


def test_a_falling_loss_falls_from_left_to_right() -> None:
    top, bottom = plot([4.0, 3.0, 2.0, 1.0], 4, 2)
    assert top == "█▃  "
    assert bottom == "███▁" or bottom[0] == "█"


def test_a_loss_that_fell_far_is_plotted_by_its_logarithm() -> None:
    assert plotted([8.0, 1.0]) == ([8.0, 1.0], "")
    assert plotted([8.0, 0.0]) == ([8.0, 0.0], "")
    values, remark = plotted([10.0, math.nan, 0.01])
    assert (values[0], math.isnan(values[1]), values[2], remark) == (1.0, True, -2.0, ", logarithmic")


@given(
    values=st.lists(st.floats(width=32), max_size=200),
    width=st.integers(1, 80),
    height=st.integers(1, 6),
    unicode=st.booleans(),
)
def test_a_plot_never_outgrows_its_place(values: list[float], width: int, height: int, unicode: bool) -> None:
    lines = plot(values, width, height, unicode=unicode)
    assert len(lines) == height
    assert all(len(text) == min(len(values), width) for text in lines)
    assert unicode or all(text.isascii() for text in lines)


@pytest.mark.parametrize(("planned", "step"), [(10**400, 2), (5, 10**400)])
def test_numbers_beyond_all_measure_are_shown_without_a_time_left(planned: int, step: int) -> None:
    course = RunProgress(planned_steps=planned)
    course.add([{"step": 1, "tokens": 10, "seconds": 1.0}, {"step": step, "tokens": 20, "seconds": 2.0}])
    assert dict(figures(course))["time left"] == "not known yet"
