"""One run, with everything it needs, checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.train.resume import StartPoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.config.resolve import Resolved
    from kit.data.batch_order import BatchOrder
    from kit.data.dataset import EncodedFile
    from kit.machine.facts import Machine
    from kit.plan.alternatives import PlannedRun
    from kit.plan.run_plan import RunPlan
    from kit.stacks.stack import Stack
    from kit.train.fit import Fit


@dataclass(frozen=True)
class TrainingJob:
    """Everything a run needs, checked.

    Attributes:
        files: The training file, then the validation file if there is one.
        base: The base model's files by hash: see ``describe_base``.
        identity: What a resumed run must have in common: see ``identity_of``.
        planned_run: The same, planned; None where that could not be.
        candidates: What to try before the run, which then begins again; mostly nothing.
    """

    resolved: Resolved
    machine: Machine
    platform: str
    stack: Stack
    files: Sequence[EncodedFile]
    plan: BatchOrder
    base: dict[str, Any]
    identity: dict[str, Any]
    start: StartPoint = field(default_factory=StartPoint)
    planned_run: PlannedRun | None = None
    auto_fit: bool = False
    fits: Sequence[Fit] = ()
    candidates: Sequence[Fit] = ()

    @property
    def predicted(self) -> RunPlan | None:
        """What it will take; None where that is not known."""
        return self.planned_run.plan if self.planned_run else None
