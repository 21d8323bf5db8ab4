"""Rules on size: whether rows of full length fit the model and the device."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kit.estimate import MemoryEstimate, MemoryLimit, estimate_memory, memory_limit
from kit.findings import Finding, error, ok, skipped, warning
from kit.machine.nvidia_rules import gigabytes
from kit.model.shape import shape_of

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.model.shape import ModelShape
    from kit.rules.situation import Situation

# The estimate is a first one: it is believed only where it is clearly over.
_CLEARLY_OVER = 1.15
_TIGHT = 0.9


def row_length(run: Situation) -> list[Finding]:
    """Refuse rows longer than the positions the model was made with."""
    shape, key = shape_of(run.settings.model.model_name_or_path), "training.max_seq_length"
    length = run.settings.training.max_seq_length
    if shape is None or length <= shape.max_position_embeddings:
        return []
    message = f"{key} is {length:,}, but the model has {shape.max_position_embeddings:,} positions"
    return [error("config.memory.positions", message, f"{key}={shape.max_position_embeddings}", run.where(key))]


def fits(run: Situation) -> list[Finding]:
    """Compare the estimated peak with what the device has."""
    key = "training.per_device_train_batch_size"
    shape = shape_of(run.settings.model.model_name_or_path)
    if shape is None:
        message = "memory was not estimated: the model's config.json is not in a local directory"
        return [skipped("config.memory", message, where=run.where("model.model_name_or_path"))]
    limit = memory_limit(run.machine, run.platform, run.gpu)
    if limit is None:
        return [skipped("config.memory", "memory was not compared: the machine did not say what it has")]
    estimate = _estimate(run, shape, run.settings)
    share = estimate.peak_memory_bytes / limit.size_bytes if limit.size_bytes > 0 else float("inf")
    message = _sentence(estimate, limit)
    if share > _CLEARLY_OVER:
        return [error("config.memory", f"{message}: it will not fit", _smaller(run, shape, limit), run.where(key))]
    if share > _TIGHT:
        return [warning("config.memory", f"{message}: that is tight", _smaller(run, shape, limit), run.where(key))]
    return [ok("config.memory", f"{message}: it fits", run.where(key))]


def _estimate(run: Situation, shape: ModelShape, settings: Settings) -> MemoryEstimate:
    # trl 0.7 of the reference stack holds all logits; trl 1 computes the loss in chunks.
    fused = run.stack.name != "reference"
    return estimate_memory(shape, settings, run.platform, run.attention, fused_loss=fused)


def _sentence(estimate: MemoryEstimate, limit: MemoryLimit) -> str:
    largest = sorted(estimate.terms, key=lambda term: term.size_bytes, reverse=True)[:3]
    parts = ", ".join(f"{term.name} {gigabytes(term.size_bytes)}" for term in largest)
    peak = gigabytes(estimate.peak_memory_bytes)
    return f"estimated peak {peak} ({parts}, …) of {gigabytes(limit.size_bytes)} ({limit.reason})"


def _smaller(run: Situation, shape: ModelShape, limit: MemoryLimit) -> str:
    """Name the mildest change that fits: same effective batch first, then recomputation, then shorter rows."""
    training, batch = run.settings.training, run.settings.effective_batch_size
    changes: list[dict[str, Any]] = [
        {"per_device_train_batch_size": rows, "gradient_accumulation_steps": batch // rows}
        for rows in range(training.per_device_train_batch_size - 1, 0, -1)
        if batch % rows == 0
    ]
    one_row: dict[str, Any] = changes[-1] if changes else {}
    if not training.gradient_checkpointing:
        changes.insert(0, {"gradient_checkpointing": True})
        changes.append({**one_row, "gradient_checkpointing": True})
    length = training.max_seq_length // 2
    while length >= _SHORTEST_ROW:
        changes.append({**one_row, "gradient_checkpointing": True, "max_seq_length": length})
        length //= 2
    for change in changes:
        smaller = replace(run.settings, training=replace(training, **change))
        if _estimate(run, shape, smaller).peak_memory_bytes <= limit.size_bytes * _TIGHT:
            shown = {key: value for key, value in change.items() if getattr(training, key) != value}
            return " ".join(f"training.{key}={str(value).lower()}" for key, value in shown.items())
    return "free memory on the device, or use a smaller model or a larger device"


_SHORTEST_ROW = 128  # tokens
