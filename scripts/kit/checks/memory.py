"""Rules on size: whether the rows fit the model and the device. The arithmetic is ``kit.plan``'s."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.console import gigabytes
from kit.cli.findings import Finding, error, ok, skipped, warning
from kit.model.shape import shape_of
from kit.plan.alternatives import Question, mildest_that_fits
from kit.plan.rows import workloads_for
from kit.plan.run_plan import Device, plan_run
from kit.plan.show import left_out, limit_words

if TYPE_CHECKING:
    from kit.checks.context import Situation
    from kit.data.token_rows import TokenRows
    from kit.model.shape import ModelShape
    from kit.plan.run_plan import RunPlan


def row_length(run: Situation) -> list[Finding]:
    """Refuse rows longer than the positions the model was made with."""
    shape, key = shape_of(run.settings.model), "training.max_seq_length"
    length = run.settings.training.max_seq_length
    if shape is None or length <= shape.max_position_embeddings:
        return []
    message = f"{key} is {length:,}, but the model has {shape.max_position_embeddings:,} positions"
    return [error("config.memory.positions", message, f"{key}={shape.max_position_embeddings}", run.where(key))]


def fits(run: Situation, rows: TokenRows | None = None) -> list[Finding]:
    """Compare the planned peak with what the device has.

    Args:
        run: What is about to run.
        rows: What it is trained on; without them each row is taken to be full length.
    """
    key = "training.per_device_train_batch_size"
    shape = shape_of(run.settings.model)
    if shape is None:
        message = "memory was not planned: the model's config.json is not in a local directory"
        return [skipped("config.memory", message, where=run.where("model.model_name_or_path"))]
    device = device_of(run)
    if device.limit is None:
        return [skipped("config.memory", "memory was not compared: the machine did not say what it has")]
    workloads, _ = workloads_for(run.settings, rows)
    plan = plan_run(run.settings, shape, device, workloads(run.settings))
    uncounted = left_out(plan, run.platform)
    planned = _sentence(plan, "resident " if run.platform == "cpu" else "")
    message = f"{planned}; {uncounted}" if uncounted else planned
    if plan.verdict == "fits":
        return [ok("config.memory", message, run.where(key))]
    severity = warning if plan.verdict == "tight" else error
    return [severity("config.memory", message, _smaller(run, shape, rows), run.where(key))]


def device_of(run: Situation) -> Device:
    """Return what a run is planned on; with no stack installed, as the default one would run it."""
    attention = run.stack.planned_attention(run.settings, run.platform)
    return Device(run.machine, run.platform, run.gpu, run.stack, attention)


def _sentence(plan: RunPlan, kind: str) -> str:
    largest = sorted(plan.peak.terms, key=lambda term: term.size_bytes, reverse=True)[:3]
    parts = ", ".join(f"{term.name} {gigabytes(term.size_bytes)}" for term in largest)
    longest = f"{plan.batch.rows} x {plan.batch.length:,} tokens"
    return f"planned peak {gigabytes(plan.peak_memory_bytes)} {kind}at {longest} ({parts}, …){limit_words(plan)}"


def _smaller(run: Situation, shape: ModelShape, rows: TokenRows | None) -> str:
    """Name the mildest change that fits: the same updates first, then shorter rows."""
    workloads, _ = workloads_for(run.settings, rows)
    choice = mildest_that_fits(Question(run.settings, shape, device_of(run), workloads))
    return choice.overrides if choice else "free memory on the device, or use a smaller model or a larger device"
