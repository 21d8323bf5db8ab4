"""One run, with everything it needs, checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.train.resume import Start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.config.resolve import Resolved
    from kit.data.batch_order import TrainingPlan
    from kit.data.dataset import EncodedFile
    from kit.machine.facts import Machine
    from kit.plan.alternatives import Question
    from kit.plan.run_plan import RunPlan
    from kit.stacks.stack import Stack
    from kit.train.fit import Fit


@dataclass(frozen=True)
class Job:
    """Everything a run needs, checked.

    Attributes:
        resolved: The configuration.
        machine: The machine it runs on.
        platform: Platform name.
        stack: The installed stack.
        files: The training file and, where there is one, the validation file.
        plan: The run, step by step.
        base: The base model's files by hash: see ``describe_base``.
        identity: What a resumed run must have in common: see ``identity_of``.
        start: How it begins.
        question: The same, planned; None where that could not be.
        auto_fit: Other settings of the same updates may be taken where these do not fit.
        fits: Those that were taken already, in order.
        candidates: What to try before the run, which then begins again; mostly nothing.
    """

    resolved: Resolved
    machine: Machine
    platform: str
    stack: Stack
    files: Sequence[EncodedFile]
    plan: TrainingPlan
    base: dict[str, Any]
    identity: dict[str, Any]
    start: Start = field(default_factory=Start)
    question: Question | None = None
    auto_fit: bool = False
    fits: Sequence[Fit] = ()
    candidates: Sequence[Fit] = ()

    @property
    def predicted(self) -> RunPlan | None:
        """What it will take; None where that is not known."""
        return self.question.plan if self.question else None
