"""Check the plan: whether the rows fit the model and the device, and how long the run takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.console import duration as in_words
from kit.cli.console import gigabytes
from kit.cli.failures import run_check
from kit.cli.findings import Finding, error, ok, skipped, warning
from kit.model.shape import shape_of
from kit.plan.alternatives import PlannedRun, mildest_that_fits, planned_run_of
from kit.plan.run_plan import device_for
from kit.plan.show import left_out, limit_words

if TYPE_CHECKING:
    from kit.checks.context import CheckContext
    from kit.data.token_rows import TokenRows
    from kit.plan.run_plan import RunPlan


def check_plan(
    run: CheckContext, rows: TokenRows | None = None, held_out: TokenRows | None = None
) -> tuple[list[Finding], PlannedRun | None]:
    """Plan a run once, and compare its memory with the device; return the findings and the plan.

    Without ``rows``, each row is taken to be full length.
    """
    planned: list[PlannedRun | None] = []

    def plan() -> list[Finding]:
        device = device_for(run.settings, run.judgement, run.machine, run.stack)
        planned.append(planned_run_of(run.settings, device, rows, held_out))
        return fits(run, planned[0])

    found = run_check(plan, "config.memory")
    planned_run = planned[0] if planned else None
    if planned_run:
        found += run_check(lambda: duration(run, planned_run.plan), "config.duration")
    return found, planned_run


def row_length(run: CheckContext) -> list[Finding]:
    """Refuse rows longer than the positions the model was made with."""
    shape, key = shape_of(run.settings.model), "training.max_seq_length"
    length = run.settings.training.max_seq_length
    if shape is None or length <= shape.max_position_embeddings:
        return []
    message = f"{key} is {length:,}, but the model has {shape.max_position_embeddings:,} positions"
    return [error("config.memory.positions", message, f"{key}={shape.max_position_embeddings}", run.where(key))]


def fits(run: CheckContext, planned_run: PlannedRun | None) -> list[Finding]:
    """Compare the planned peak with what the device has."""
    key = "training.per_device_train_batch_size"
    if planned_run is None:
        message = "memory not planned: the model's config.json is not in a local directory"
        return [skipped("config.memory", message, where=run.where("model.model_name_or_path"))]
    if planned_run.device.limit is None:
        return [skipped("config.memory", "memory not compared: the device's memory is unknown")]
    plan = planned_run.plan
    uncounted = left_out(plan, run.platform)
    planned = _sentence(plan, "resident " if run.platform == "cpu" else "")
    message = f"{planned}; {uncounted}" if uncounted else planned
    if plan.verdict == "fits":
        return [ok("config.memory", message, run.where(key))]
    severity = warning if plan.verdict == "tight" else error
    # The same updates first, then shorter rows.
    mildest = mildest_that_fits(planned_run)
    fix = mildest.overrides if mildest else "free memory on the device, or use a smaller model or a larger device"
    return [severity("config.memory", message, fix, run.where(key))]


def _sentence(plan: RunPlan, kind: str) -> str:
    largest = sorted(plan.peak.terms, key=lambda term: term.size_bytes, reverse=True)[:3]
    parts = ", ".join(f"{term.name} {gigabytes(term.size_bytes)}" for term in largest)
    longest = f"{plan.batch.rows} x {plan.batch.length:,} tokens"
    return f"planned peak {gigabytes(plan.peak_memory_bytes)} {kind}at {longest} ({parts}, …){limit_words(plan)}"


def duration(run: CheckContext, plan: RunPlan) -> list[Finding]:
    """State tokens and hours; silent where neither tokens nor rows could be counted."""
    spent = plan.duration
    span = f"{in_words(spent.fast_seconds)} to {in_words(spent.slow_seconds)}" if spent else ""
    if plan.is_counted:
        size = f"{plan.tokens:,} tokens in {plan.steps:,} steps of {run.settings.effective_batch_size} rows"
        if spent is None:
            return [ok("run.time", f"{size}; the time is unknown for this model")]
        padding = f"{plan.computed_tokens - plan.tokens:,} of padding included"
        return [ok("run.time", f"{size}: {span} on {run.platform} {spent.basis}, {padding}")]
    if spent is None or not Path(run.settings.data.train_file).expanduser().is_file():
        return []
    message = (
        f"at most {plan.tokens / 1e6:,.1f} M tokens if every row is full length: {span} on "
        f"{run.platform} {spent.basis}; shorter rows take less"
    )
    return [ok("config.duration", message, run.where("data.train_file"))]
