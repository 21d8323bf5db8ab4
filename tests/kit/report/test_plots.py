"""What is on the axes is what the run did."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from matplotlib.figure import Figure

from kit.report import plots
from kit.report.contents import gather
from kit.report.palette import PICTURE
from written_run import write_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes

    from kit.report.contents import Contents
    from kit.report.palette import Palette


def drawn(draw: Callable[[Axes, Contents, Palette], None], folder: Path) -> Axes:
    axes = Figure().add_subplot()
    draw(axes, gather(folder), PICTURE)
    return axes


def labels(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [text.get_text() for text in legend.get_texts()] if legend else []


def test_every_step_is_on_the_axis_although_the_loss_broke_early(tmp_path: Path) -> None:
    axes = drawn(plots.loss, write_run(tmp_path / "run", loss=lambda step: 1.0 if step < 20 else math.nan))
    low, high = axes.get_xlim()
    assert low <= 1
    assert high >= 100
    assert "NaN or infinite" in labels(axes)


@pytest.mark.parametrize(("last", "scale"), [(0.001, "log"), (0.5, "linear"), (0.0, "linear"), (-1.0, "linear")])
def test_a_loss_that_fell_far_is_on_a_logarithmic_axis(tmp_path: Path, last: float, scale: str) -> None:
    folder = write_run(
        tmp_path / "run", done=8, loss=lambda step: 3.0 if step == 1 else last, evaluations=[(8, 2.0), (4, last)]
    )
    assert drawn(plots.loss, folder).get_yscale() == scale


def test_a_linear_axis_begins_at_zero(tmp_path: Path) -> None:
    for draw in (plots.loss, plots.learning_rate, plots.grad_norm, plots.throughput):
        assert drawn(draw, write_run(tmp_path / draw.__name__)).get_ylim()[0] == 0


def test_the_clipping_length_is_drawn_where_something_was_clipped(tmp_path: Path) -> None:
    assert labels(drawn(plots.grad_norm, write_run(tmp_path / "a", line={"grad_norm": 0.9}))) == ["clipped at 0.3"]
    assert not labels(drawn(plots.grad_norm, write_run(tmp_path / "b", line={"grad_norm": 0.2})))


@pytest.mark.parametrize(("longest", "is_drawn"), [(60, True), (40, True), (10, False)])
def test_the_length_limit_is_drawn_unless_it_is_far_away(tmp_path: Path, longest: int, is_drawn: bool) -> None:
    entry = {"path": "t.jsonl", "length_histogram": {"edges": [0, longest], "counts": [5]}}
    assert bool(labels(drawn(plots.lengths, write_run(tmp_path / "run", data=[entry])))) == is_drawn


@pytest.mark.parametrize(("seconds", "unit"), [(10.0, "seconds"), (600.0, "minutes"), (9000.0, "hours")])
def test_time_is_drawn_in_a_unit_that_can_be_read(tmp_path: Path, seconds: float, unit: str) -> None:
    folder = write_run(tmp_path / "run", predicted={"seconds": [1.0, seconds]})
    assert drawn(plots.predicted_time, folder).get_xlabel() == unit


def test_epochs_are_marked_where_they_end(tmp_path: Path) -> None:
    axes = drawn(plots.loss, write_run(tmp_path / "run"))
    assert [text.get_text() for text in axes.texts] == ["epoch 1", "epoch 2"]
