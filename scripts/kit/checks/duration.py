"""Say how long the run can take: an upper bound from the number of rows, since their lengths are not known yet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kit.checks.memory import device_of
from kit.cli.console import duration as in_words
from kit.cli.findings import Finding, ok
from kit.model.shape import shape_of
from kit.plan.rows import workloads_for
from kit.plan.run_plan import plan_run

if TYPE_CHECKING:
    from kit.checks.context import Situation


def duration(run: Situation) -> list[Finding]:
    """State tokens and hours if every row is full length; silent where the rows cannot be counted."""
    shape = shape_of(run.settings.model)
    path = Path(run.settings.data.train_file).expanduser()
    if shape is None or not path.is_file():
        return []
    workloads, _ = workloads_for(run.settings, None)
    plan = plan_run(run.settings, shape, device_of(run), workloads(run.settings))
    if plan.duration is None:
        return []
    low, high = in_words(plan.duration.fast_seconds), in_words(plan.duration.slow_seconds)
    message = (
        f"at most {plan.tokens / 1e6:,.1f} M tokens if every row is full length: {low} to {high} on "
        f"{run.platform} {plan.duration.basis}; shorter rows take less"
    )
    return [ok("config.duration", message, run.where("data.train_file"))]
