"""The nearest settings that fit, after a rehearsal that ran out of memory: the plan's arithmetic, corrected by it.

The same updates, only cut otherwise. Pure; what was seen is measured by ``kit.train.rehearsal``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.cli.console import gigabytes
from kit.cli.failures import SMALLER, ExplainedError
from kit.plan.alternatives import nearness, same_updates
from kit.plan.limits import TIGHT
from kit.plan.memory import coming_bytes

if TYPE_CHECKING:
    from kit.plan.alternatives import Alternative, PlannedRun
    from kit.plan.run_plan import RunPlan

# "Tried to allocate 2.00 GiB" of CUDA and MPS, "you tried to allocate 4096 bytes" of a CPU.
_ASKED = re.compile(r"tried to allocate ([0-9.]+) (bytes|[KMGT]i?B)", re.IGNORECASE)
# Where by all that is known it should have fitted, nothing says by how much it did not: a third less finds out.
_UNEXPLAINED = 2 / 3
_UNITS = ("bytes", "k", "m", "g", "t")


@dataclass(frozen=True)
class OutOfMemory:
    """What was seen when a device refused the largest micro-batch.

    Attributes:
        length: Tokens of its longest row.
        standing_bytes: In use before it: what always stands, without gradients and the optimizer's state.
        reached_bytes: The most that was in use, and what was asked for on top.
        room_bytes: All that the device had for this process.
    """

    rows: int
    length: int
    standing_bytes: int
    reached_bytes: int
    room_bytes: int


class RehearsalError(ExplainedError):
    """The largest micro-batch ran out of memory before the first step."""

    finding_id, fix = "run.out_of_memory", SMALLER

    def __init__(self, refusal: OutOfMemory) -> None:
        """Describe the refusal in one sentence."""
        self.refusal = refusal
        super().__init__(
            f"out of memory at the largest micro-batch, {refusal.rows} x {refusal.length:,} tokens, before the first "
            f"step: {gigabytes(refusal.reached_bytes)} used and requested, "
            f"{gigabytes(refusal.room_bytes)} available"
        )


def asked_bytes(message: str) -> int:
    """Return how much an allocator was asked for, from the words it refused with; 0 where it does not say."""
    found = _ASKED.search(message)
    if found is None:
        return 0
    unit = found[2].lower()
    power = 0 if unit == "bytes" else _UNITS.index(unit[0])
    return int(float(found[1]) * 1024**power)


def growth(refusal: OutOfMemory, plan: RunPlan) -> float:
    """Return how many times its planned memory the micro-batch took at least; never below 1.

    It was refused before its peak, so the truth may be more: another refusal tells.
    """
    planned = plan.peak.moving_bytes
    return max(1.0, (refusal.reached_bytes - refusal.standing_bytes) / planned) if planned else 1.0


def nearest_that_fits(planned_run: PlannedRun, refusal: OutOfMemory) -> Alternative | None:
    """Return the fastest settings of the same updates that fit what the device had; None where none do."""
    most = _most_moving(planned_run, refusal)
    fitting = [item for item in same_updates(planned_run) if item.plan.peak.moving_bytes <= most]
    return min(fitting, key=lambda item: nearness(planned_run, item), default=None)


def _most_moving(planned_run: PlannedRun, refusal: OutOfMemory) -> float:
    """Return the most that a micro-batch may be planned to add: always less than the refused one's."""
    moving = planned_run.plan.peak.moving_bytes
    coming = coming_bytes(planned_run.shape, planned_run.settings)
    most = (refusal.room_bytes * TIGHT - refusal.standing_bytes - coming) / growth(refusal, planned_run.plan)
    return most if most < moving else moving * _UNEXPLAINED
