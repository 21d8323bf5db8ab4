"""Two runs' losses, gradient norms and evaluations, step against step: from which step on they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.files.numbers import finite, logged
from kit.runs.traces import compare_traces, evaluation_trace, loss_trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.run_folder.history import Run
    from kit.runs.traces import Gap, TraceComparison

LOSS = "training loss"
_PERCENT = 0.01


@dataclass(frozen=True)
class Course:
    """One kind of number, step against step.

    Attributes:
        trace: What differs.
        equal_before: Steps that both have before the first that differs; all of them where none does.
    """

    trace: TraceComparison
    equal_before: int


def _norms(run: Run) -> dict[int, float]:
    return {line["step"]: norm for line in run.steps if (norm := logged(line, "grad_norm")) is not None}


_TRACES: dict[str, Callable[[Run], dict[int, float]]] = {
    LOSS: loss_trace,
    "gradient norm": _norms,
    "validation loss": evaluation_trace,
}


def courses_of(first: Run, second: Run) -> dict[str, Course]:
    """Compare the training losses, the gradient norms and the validation losses of two runs."""
    return {name: _course(read(first), read(second)) for name, read in _TRACES.items()}


def _course(first: dict[int, float], second: dict[int, float]) -> Course:
    trace = compare_traces(first, second)
    gap = trace.first_gap
    return Course(trace, sum(1 for step in first.keys() & second.keys() if gap is None or step < gap.step))


def in_words(course: Course) -> str:
    """Say from which step on two runs' numbers differ, and by how much."""
    trace, gap, largest = course.trace, course.trace.first_gap, course.trace.largest_relative
    alone = len(trace.only_first) + len(trace.only_second)
    more = f"; {steps(alone)} in one of them alone" if alone else ""
    if gap is None or largest is None:
        return f"equal to the last bit over all {steps(trace.compared)}{more}" if trace.compared else f"none{more}"
    before = f"equal to the last bit over {steps(course.equal_before)}, then " if course.equal_before else ""
    return (
        f"{before}apart from step {gap.step:,} on, by {size_of(gap)} there; {len(trace.gaps):,} of "
        f"{steps(trace.compared)} differ, most at step {largest.step:,}, by {size_of(largest)}{more}"
    )


def size_of(gap: Gap) -> str:
    """Write how far apart two numbers are, for their size."""
    share = finite(gap.relative)
    if share is None:
        return "more than can be said: one of them is no number"
    return f"{share:.1e} of its size" if share < _PERCENT else f"{share:.0%}"


def steps(count: int) -> str:
    """Write ``1 step`` or ``1,000 steps``."""
    return f"{count:,} step{'' if count == 1 else 's'}"


def as_mapping(course: Course) -> dict[str, Any]:
    """Return a course as plain JSON."""
    trace = course.trace
    return {
        "compared": trace.compared,
        "different": len(trace.gaps),
        "equal_before": course.equal_before,
        "only_first": list(trace.only_first),
        "only_second": list(trace.only_second),
        "first_difference": _gap_mapping(trace.first_gap),
        "largest_difference": _gap_mapping(trace.largest_relative),
        "sentence": in_words(course),
    }


def _gap_mapping(gap: Gap | None) -> dict[str, Any] | None:
    if gap is None:
        return None
    # JSON knows no NaN and no infinity.
    values = {"first": gap.first, "second": gap.second, "absolute": gap.absolute, "relative": gap.relative}
    return {"step": gap.step, **{name: finite(value) for name, value in values.items()}}
