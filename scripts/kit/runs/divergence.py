"""Where two runs diverge: how they began, from which step their numbers differ, and the most likely cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.files.numbers import finite, listed, logged, mapping
from kit.runs.comparison import Difference, compare_results, compare_runs
from kit.runs.provenance import can_change_bits
from kit.runs.traces import compare_traces, evaluation_trace, loss_trace
from kit.train.resume import MAY_DIFFER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kit.run_directory.history import Run
    from kit.runs.traces import Gap, TraceComparison

SAME, OTHER, UNKNOWN = "the same", "another", "not recorded"
LOSS = "training loss"
# These act through the updates alone, and the first step's loss comes before any.
_ACTS_LATER = frozenset(
    f"training.{key}"
    for key in (
        "learning_rate",
        "lr_scheduler_type",
        "max_grad_norm",
        "max_steps",
        "num_train_epochs",
        "optim",
        "warmup_ratio",
        "weight_decay",
    )
)
# float32 keeps 6e-8 of a number, and some roundings add up within one loss.
_ROUNDING = 1e-5
_PERCENT = 0.01
_MOST_NAMED = 4


@dataclass(frozen=True)
class Divergence:
    """Two runs compared.

    Attributes:
        adapter_at_start: ``the same``, ``another`` or ``not recorded``; likewise the two below.
        traces: By name: training loss, gradient norm, validation loss.
        verdict: The most likely cause, in one sentence.
    """

    differences: tuple[Difference, ...]
    results: tuple[Difference, ...]
    adapter_at_start: str
    order_of_rows: str
    adapter_at_end: str
    traces: dict[str, TraceComparison]
    verdict: str

    def as_mapping(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            **vars(self),
            "differences": [vars(found) for found in self.differences],
            "results": [vars(found) for found in self.results],
            "traces": {name: _trace_mapping(trace) for name, trace in self.traces.items()},
        }


def _trace_mapping(trace: TraceComparison) -> dict[str, Any]:
    return {
        "compared": trace.compared,
        "different": len(trace.gaps),
        "equal_before": trace.equal_before,
        "only_first": list(trace.only_first),
        "only_second": list(trace.only_second),
        "first_difference": trace.first_gap and trace.first_gap.as_mapping(),
        "largest_difference": trace.largest_relative and trace.largest_relative.as_mapping(),
        "sentence": in_words(trace),
    }


def find_divergence(first: Run, second: Run) -> Divergence:
    """Compare two runs in everything their folders hold."""
    traces = {name: compare_traces(read(first), read(second)) for name, read in _TRACES.items()}
    differences = tuple(compare_runs(first, second))
    receipts = (first.receipt, second.receipt)
    start, end = (_compared(*((each.get(key),) for each in receipts)) for key in _ADAPTERS)
    identities = [mapping(each.get("identity")) for each in receipts]
    return Divergence(
        differences=differences,
        results=tuple(compare_results(first, second)),
        adapter_at_start=start,
        order_of_rows=_compared(*(tuple(each.get(key) for key in ("data.rows", "data.order")) for each in identities)),
        adapter_at_end=end,
        traces=traces,
        verdict=_verdict((first, second), differences, traces, start, end),
    )


def in_words(trace: TraceComparison) -> str:
    """Say from which step on two runs' numbers differ, and by how much."""
    gap, largest = trace.first_gap, trace.largest_relative
    alone = len(trace.only_first) + len(trace.only_second)
    more = f"; {_steps(alone)} in only one run" if alone else ""
    if gap is None or largest is None:
        return f"bit-equal over all {_steps(trace.compared)}{more}" if trace.compared else f"none{more}"
    before = f"bit-equal over {_steps(trace.equal_before)}, then " if trace.equal_before else ""
    return (
        f"{before}different from step {gap.step:,} on (there by {_size_of(gap)}); {len(trace.gaps):,} of "
        f"{_steps(trace.compared)} differ, most at step {largest.step:,}, by {_size_of(largest)}{more}"
    )


def _grad_norms(run: Run) -> dict[int, float]:
    return {line["step"]: norm for line in run.steps if (norm := logged(line, "grad_norm")) is not None}


_ADAPTERS = ("adapter_init_sha256", "adapter_sha256")
_TRACES: dict[str, Callable[[Run], dict[int, float]]] = {
    LOSS: loss_trace,
    "gradient norm": _grad_norms,
    "validation loss": evaluation_trace,
}


def _compared(one: tuple[Any, ...], other: tuple[Any, ...]) -> str:
    if None in one or None in other:
        return UNKNOWN
    return SAME if one == other else OTHER


def _verdict(  # noqa: PLR0911 - a sentence each
    runs: Sequence[Run], differences: Sequence[Difference], traces: dict[str, TraceComparison], start: str, end: str
) -> str:
    trace = traces[LOSS]
    if not trace.compared:
        return "The runs have no step in common."
    apart = [name for name, other in traces.items() if other.gaps]
    if not apart:
        without = f"; without effect: {_list([found.name for found in differences])}" if differences else ""
        adapters = {SAME: ", and so are the adapters", OTHER: ", but the adapters differ: make verify"}.get(end, "")
        return f"All {_steps(trace.compared)} in common are bit-equal{adapters}{without}."
    if start == OTHER:
        causes = [
            found.name for found in differences if found.name.startswith(("lora.", "training.seed", "base model"))
        ]
        return f"The initial adapters differ; likely cause: {_list(causes) or 'none recorded'}."
    gap = trace.first_gap
    if gap is None:
        return f"The training losses are bit-equal; these differ: {_list(apart)}."
    lead = f"The training losses differ from step {gap.step:,} on, there by {_size_of(gap)}"
    if causes := [found.name for found in differences if _can_move_losses(found, at_start=trace.equal_before == 0)]:
        return f"{lead}; likely cause: {_list(causes)}."
    if any(len(listed(run.receipt.get("sessions"))) > 1 for run in runs):
        return f"{lead}; no recorded cause, but one run was resumed: make verify on its folder."
    if gap.relative <= _ROUNDING and any(run.receipt.get("platform") != "cpu" for run in runs):
        return f"{lead}; likely cause: rounding, since a GPU adds in varying order."
    return f"{lead}; no recorded cause: train one of them again and compare."


def _can_move_losses(found: Difference, *, at_start: bool) -> bool:
    group, name = found.group, found.name
    if group == "config":
        return not (
            name in MAY_DIFFER or name == "training.per_device_eval_batch_size" or (at_start and name in _ACTS_LATER)
        )
    if group == "data":
        return name in {"rows as encoded", "order of the rows"} or name.startswith("base model ")
    if group == "stack":
        return name in {"stack", "attention"} or can_change_bits(name)
    return name not in {"cpu_count", "in_container", "revision"}


def _size_of(gap: Gap) -> str:
    share = finite(gap.relative)
    if share is None:
        return "an unknown amount: one is not finite"
    return f"{share:.1e} of its size" if share < _PERCENT else f"{share:.0%}"


def _steps(count: int) -> str:
    return f"{count:,} step{'' if count == 1 else 's'}"


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    return shown + (f", and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else "")
