"""Where two runs part: how they began, from which step on their numbers differ, and what most likely explains it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.files.numbers import mapping
from kit.runs.comparison import Difference, compare_results, compare_runs
from kit.runs.divergence_causes import OTHER, SAME, UNKNOWN, explain
from kit.runs.loss_curves import Course, as_mapping, courses_of

if TYPE_CHECKING:
    from kit.run_folder.history import Run


@dataclass(frozen=True)
class Parting:
    """Two runs, held against each other.

    Attributes:
        differences: What they were made from and with, where it differs.
        results: What came of each.
        adapter_at_start: ``the same``, ``another`` or ``not recorded``.
        order_of_rows: Likewise.
        adapter_at_end: Likewise.
        traces: Training loss, gradient norm and validation loss, step against step.
        verdict: What most likely explains it, in one sentence.
    """

    differences: tuple[Difference, ...]
    results: tuple[Difference, ...]
    adapter_at_start: str
    order_of_rows: str
    adapter_at_end: str
    traces: dict[str, Course]
    verdict: str

    def as_mapping(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "differences": [vars(found) for found in self.differences],
            "results": [vars(found) for found in self.results],
            "adapter_at_start": self.adapter_at_start,
            "order_of_rows": self.order_of_rows,
            "adapter_at_end": self.adapter_at_end,
            "traces": {name: as_mapping(course) for name, course in self.traces.items()},
            "verdict": self.verdict,
        }


def part(first: Run, second: Run) -> Parting:
    """Compare two runs in everything their folders hold."""
    traces = courses_of(first, second)
    differences = tuple(compare_runs(first, second))
    start = _alike(first, second, "adapter_init_sha256")
    end = _alike(first, second, "adapter_sha256")
    return Parting(
        differences=differences,
        results=tuple(compare_results(first, second)),
        adapter_at_start=start,
        order_of_rows=_order(first, second),
        adapter_at_end=end,
        traces=traces,
        verdict=explain((first, second), differences, traces, start, end),
    )


def _alike(first: Run, second: Run, key: str) -> str:
    return _compared((first.receipt.get(key),), (second.receipt.get(key),))


def _order(first: Run, second: Run) -> str:
    """Compare which rows, as they were encoded, came in which order."""
    identities = [mapping(run.receipt.get("identity")) for run in (first, second)]
    sides = [tuple(identity.get(key) for key in ("data.rows", "data.order")) for identity in identities]
    return _compared(*sides)


def _compared(one: tuple[Any, ...], other: tuple[Any, ...]) -> str:
    if None in one or None in other:
        return UNKNOWN
    return SAME if one == other else OTHER
