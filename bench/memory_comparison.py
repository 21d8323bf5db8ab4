"""A case's predicted memory beside what was measured of it, and what a device refused. Imports torch when asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.plan.activations import saved_by_model
from kit.plan.loss import saved_by_loss
from kit.plan.memory import fixed_terms, plan_peak, step_bytes

if TYPE_CHECKING:
    from bench.memory_cases import Case, Measured

# How far off a prediction may be: of what stands and what autograd keeps, counted exactly; of the peak, which has
# working sets in it; of the layers alone, which in so small a model are mostly working set.
KEPT_WITHIN, PEAK_WITHIN, LAYERS_WITHIN = 0.01, 0.05, 0.1


@dataclass(frozen=True)
class Compared:
    """One case: pairs of bytes predicted and measured.

    Attributes:
        name: What is special about it.
        standing: What stands before a step, the optimizer's state left out: it is not built here.
        kept: What autograd keeps.
        peak: The peak of a step; on a CPU above what always stands.
        layers: The same without head and loss, which hide the layers where the model is small.
        moment: When the peak is expected.
    """

    name: str
    standing: tuple[int, int]
    kept: tuple[int, int]
    peak: tuple[int, int]
    layers: tuple[int, int]
    moment: str

    @property
    def is_within(self) -> bool:
        """All figures are as near as they have to be."""
        return (
            _off(*self.kept) <= KEPT_WITHIN and _off(*self.peak) <= PEAK_WITHIN and _off(*self.layers) <= LAYERS_WITHIN
        )

    @property
    def line(self) -> str:
        """The case on one line."""
        pairs = {"stands": self.standing, "kept": self.kept, "layers": self.layers, "peak": self.peak}
        return "  ".join([*(f"{name} {_pair(*pair)}" for name, pair in pairs.items()), f"{self.name} ({self.moment})"])

    def as_mapping(self) -> dict[str, Any]:
        """Return what ``--json`` shows."""
        return {
            "name": self.name,
            "standing_bytes": {"predicted": self.standing[0], "measured": self.standing[1]},
            "kept_bytes": {"predicted": self.kept[0], "measured": self.kept[1]},
            "layers_bytes": {"predicted": self.layers[0], "measured": self.layers[1]},
            "peak_bytes": {"predicted": self.peak[0], "measured": self.peak[1]},
            "moment": self.moment,
            "within": self.is_within,
        }


@dataclass(frozen=True)
class Refused:
    """One case that the device refused the memory for.

    Attributes:
        name: What is special about it.
        needed_bytes: The most that is expected to be allocated, building the model included.
        room_bytes: What the device had free, or None where that is not known.
    """

    name: str
    needed_bytes: int
    room_bytes: int | None

    @property
    def is_within(self) -> bool:
        """The plan says too that it does not fit, as nearly as a peak has to be foretold."""
        return self.room_bytes is not None and self.needed_bytes * (1 + PEAK_WITHIN) > self.room_bytes

    @property
    def line(self) -> str:
        """The case on one line."""
        room = "" if self.room_bytes is None else f" of {self.room_bytes / 1e9:.1f} GB free"
        verdict = "does not fit here, as planned" if self.is_within else "out of memory, but planned to fit"
        return f"{verdict}: needs {self.needed_bytes / 1e9:.1f} GB{room}  {self.name}"

    def as_mapping(self) -> dict[str, Any]:
        """Return what ``--json`` shows."""
        return {
            "name": self.name,
            "refused": True,
            "needed_bytes": self.needed_bytes,
            "room_bytes": self.room_bytes,
            "within": self.is_within,
        }


def _off(predicted: int, measured: int) -> float:
    return abs(predicted / measured - 1) if measured else float(predicted != 0)


def _pair(predicted: int, measured: int) -> str:
    return f"{predicted / 1e6:.2f} MB ({(predicted / measured - 1) * 100:+.1f} %)"


def compare(case: Case, base: Any = None) -> Compared:
    """Measure one case, on a base that is there already if one is given, and put the prediction beside it."""
    from bench.memory_measure import measure

    return against(case, measure(case.job, base))


def against(case: Case, measured: Measured) -> Compared:
    """Put what today's formulas predict of a case beside what was measured."""
    job = case.job
    kept = saved_by_model(job) + saved_by_loss(job)
    standing = sum(term.size_bytes for term in fixed_terms(job) if term.name != "optimizer")
    # On CUDA the figure to meet is max_memory_allocated, which has in it what stands.
    under = (standing, measured.standing_bytes) if job.device == "cuda" else (0, 0)
    return Compared(
        case.name,
        (standing, measured.standing_bytes),
        (kept, measured.saved_bytes),
        (under[0] + step_bytes(job), under[1] + measured.step_bytes),
        (step_bytes(job, with_loss=False), measured.layers_bytes),
        plan_peak(job).moment,
    )


def refused(case: Case, room_bytes: int | None) -> Refused:
    """Say what a case that ran out of memory was expected to take, of what was free before it."""
    job = case.job
    # The model is made on the device before its layers are quantised.
    unquantised = (job.shape.linear_parameters + job.shape.embedding_parameters) * job.base_size
    return Refused(case.name, max(plan_peak(job).allocated_bytes, unquantised), room_bytes)
