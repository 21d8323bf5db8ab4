"""The failure of a rehearsal, which can be judged without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.console import gigabytes
from kit.cli.failures import SMALLER, ExplainedError

if TYPE_CHECKING:
    from kit.plan.after_oom import OutOfMemory


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
