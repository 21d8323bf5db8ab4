"""Say how long the run takes: from its tokens where they were counted, else at most, from the number of rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.console import duration as in_words
from kit.cli.findings import Finding, ok

if TYPE_CHECKING:
    from kit.checks.context import Situation
    from kit.plan.run_plan import RunPlan


def duration(run: Situation, plan: RunPlan) -> list[Finding]:
    """State tokens and hours; silent where neither tokens nor rows could be counted."""
    spent = plan.duration
    span = f"{in_words(spent.fast_seconds)} to {in_words(spent.slow_seconds)}" if spent else ""
    if plan.is_counted:
        size = f"{plan.tokens:,} tokens in {plan.steps:,} steps of {run.settings.effective_batch_size} rows"
        if spent is None:
            return [ok("run.time", f"{size}; how long they take is not known for this model here")]
        padding = f"{plan.computed_tokens - plan.tokens:,} of padding counted"
        return [ok("run.time", f"{size}: {span} on {run.platform} {spent.basis}, {padding}")]
    if spent is None or not Path(run.settings.data.train_file).expanduser().is_file():
        return []
    message = (
        f"at most {plan.tokens / 1e6:,.1f} M tokens if every row is full length: {span} on "
        f"{run.platform} {spent.basis}; shorter rows take less"
    )
    return [ok("config.duration", message, run.where("data.train_file"))]
