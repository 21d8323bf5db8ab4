"""Curves keep what matters of any number of steps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.report.curves import MOST_POINTS, Curve, curve, curves_of, epoch_ends, rate, smooth, thin

ANYTHING = st.one_of(st.none(), st.booleans(), st.text(max_size=3), st.integers(), st.floats(), st.just([1]))


def test_thinning_keeps_a_single_spike_among_200_000_steps() -> None:
    values = [1.0] * 200_000
    values[123_456] = 50.0
    found = thin(Curve(tuple(range(200_000)), tuple(values)))
    assert len(found.steps) <= MOST_POINTS
    assert max(found.values) == 50.0
    assert (found.steps[0], found.steps[-1]) == (0, 199_999)


@given(st.lists(st.floats(-1e6, 1e6), max_size=300), st.integers(4, 50))
def test_thinning_keeps_order_and_extremes(values: list[float], most: int) -> None:
    full = Curve(tuple(range(len(values))), tuple(values))
    found = thin(full, most)
    assert len(found.steps) <= max(most, 2)
    assert list(found.steps) == sorted(set(found.steps))
    assert all(full.values[step] == value for step, value in zip(found.steps, found.values, strict=True))
    if values:
        assert (min(found.values), max(found.values)) == (min(values), max(values))


def test_the_smoothed_loss_begins_at_the_loss_and_stays_within_it() -> None:
    found = smooth(Curve((1, 2, 3), (4.0, 2.0, 2.0)))
    assert found.values[0] == pytest.approx(4.0)
    assert 2.0 < found.values[2] < found.values[1] < 4.0


def test_throughput_is_taken_between_steps_and_not_from_the_beginning() -> None:
    lines = [{"step": step, "tokens": 100 * step, "seconds": 50.0 + step} for step in range(1, 11)]
    assert set(rate(lines).values) == {100.0}


def test_throughput_of_a_clock_that_stands_still_is_left_out() -> None:
    assert not rate([{"step": 1, "tokens": 1, "seconds": 2.0}, {"step": 2, "tokens": 2, "seconds": 2.0}])


def test_epochs_end_at_the_first_step_that_is_past_them() -> None:
    lines = [{"step": step, "epoch": epoch} for step, epoch in enumerate((0.5, 0.99, 1.49, 1.99, 2.0, "x", 3.7), 1)]
    assert epoch_ends(lines) == ((3, 1), (5, 2), (7, 3))


def test_what_is_not_finite_is_not_drawn_and_its_steps_are_known() -> None:
    lines = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": math.nan}, {"step": 3, "loss": -math.inf}, {"step": 4}]
    found = curves_of(lines, [])
    assert found.loss == Curve((1,), (1.0,))
    assert found.broken_steps == (2, 3)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["loss", "tokens", "seconds", "epoch", "grad_norm"]), ANYTHING), max_size=20
    )
)
def test_lines_that_hold_anything_make_finite_curves(lines: list[dict[str, object]]) -> None:
    numbered = [{**line, "step": number} for number, line in enumerate(lines, 1)]
    found = curves_of(numbered, [])
    for each in (found.loss, found.smooth_loss, found.tokens_per_second, found.grad_norm):
        assert all(math.isfinite(value) for value in each.values)
    assert curve(numbered, "loss").steps == found.loss.steps
