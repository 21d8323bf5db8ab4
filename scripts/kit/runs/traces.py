"""Two runs' losses, step by step: where they differ, and by how much."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.files.numbers import finite, logged

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from kit.run_directory.history import Run

    # The loss by step; NaN where it was none.
    Trace: TypeAlias = Mapping[int, float]


@dataclass(frozen=True)
class Gap:
    """The two values of one step that differ."""

    step: int
    first: float
    second: float

    @property
    def absolute(self) -> float:
        """How far apart they are; infinite where only one of them is a number."""
        gap = abs(self.first - self.second)
        return math.inf if math.isnan(gap) else gap

    @property
    def relative(self) -> float:
        """The same as a share of the larger of the two, by magnitude."""
        if not math.isfinite(self.absolute):
            return math.inf
        return self.absolute / max(abs(self.first), abs(self.second))

    def as_mapping(self) -> dict[str, float | int | None]:
        """Return it as JSON, which knows no NaN and no infinity: they are null."""
        values = {"first": self.first, "second": self.second, "absolute": self.absolute, "relative": self.relative}
        return {"step": self.step, **{name: finite(value) for name, value in values.items()}}


@dataclass(frozen=True)
class TraceComparison:
    """Two traces side by side; ``gaps`` are not bit-equal, in order, after ``equal_before`` steps that are."""

    compared: int
    equal_before: int = 0
    gaps: tuple[Gap, ...] = ()
    only_first: tuple[int, ...] = ()
    only_second: tuple[int, ...] = ()

    @property
    def is_equal(self) -> bool:
        """The same steps with the same values, to the last bit."""
        return not (self.gaps or self.only_first or self.only_second)

    @property
    def first_gap(self) -> Gap | None:
        """The first step where the two differ."""
        return self.gaps[0] if self.gaps else None

    @property
    def largest_absolute(self) -> Gap | None:
        """The step where they are furthest apart."""
        return max(self.gaps, key=lambda gap: gap.absolute, default=None)

    @property
    def largest_relative(self) -> Gap | None:
        """The step where they are furthest apart for the size of the values."""
        return max(self.gaps, key=lambda gap: gap.relative, default=None)

    def first_beyond(self, *, relative: float, absolute: float = 0.0) -> Gap | None:
        """Return the first step that is further apart than either tolerance allows, as in ``math.isclose``."""
        return next((gap for gap in self.gaps if gap.absolute > absolute and gap.relative > relative), None)


def compare_losses(first: Run, second: Run) -> TraceComparison:
    """Compare the training loss of every step."""
    return compare_traces(loss_trace(first), loss_trace(second))


def compare_evaluations(first: Run, second: Run) -> TraceComparison:
    """Compare the validation loss of every evaluation."""
    return compare_traces(evaluation_trace(first), evaluation_trace(second))


def loss_trace(run: Run) -> dict[int, float]:
    """Return the training loss by step, where it was logged; NaN for null."""
    return {line["step"]: loss for line in run.steps if (loss := logged(line, "loss")) is not None}


def evaluation_trace(run: Run) -> dict[int, float]:
    """Return the validation loss by step; NaN for null."""
    return {line["step"]: loss for line in run.evaluations if (loss := logged(line, "eval_loss")) is not None}


def compare_traces(first: Trace, second: Trace) -> TraceComparison:
    """Compare two traces; NaN equals NaN, as both say that there was no number."""
    both = sorted(first.keys() & second.keys())
    gaps = tuple(Gap(step, first[step], second[step]) for step in both if not _same(first[step], second[step]))
    return TraceComparison(
        compared=len(both),
        equal_before=both.index(gaps[0].step) if gaps else len(both),
        gaps=gaps,
        only_first=tuple(sorted(first.keys() - second.keys())),
        only_second=tuple(sorted(second.keys() - first.keys())),
    )


def _same(first: float, second: float) -> bool:
    return first == second or (math.isnan(first) and math.isnan(second))
