"""The plan on paper: memory by term, time with its arithmetic, other settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.console import duration, gigabytes
from kit.plan.step import device_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.plan.alternatives import Alternative
    from kit.plan.run_plan import RunPlan

_MOMENTS = {
    "loss": "while the loss is computed",
    "final norm": "at the start of the backward pass",
    "feed-forward": "in the backward pass of one layer's feed-forward part",
    "attention": "in the backward pass of one layer's attention",
}
_ON_A_CPU = (
    "not counted on a CPU: the weights file while it is read, 4-bit matrices dequantised to float32, float32 copies to "
    "compute with; a 7B base in 4 bits has peaked at 22.4 GB resident"
)
# What the figure is, beside what other programs show.
_MEANING = {
    "cuda": (
        "free memory needed; nvidia-smi shows more, since torch caches freed blocks until memory runs out: on an H100 "
        "1 to 25 % of the allocated memory for rows of one length, up to 73 % for mixed lengths"
    ),
    "cpu": "resident: the process's memory and the library files it maps; a run's own figure leaves the latter out",
    "mps": "",
}
_SHOWN = 6
_SMALL = 50_000_000  # bytes: below, MB say more than GB


def memory_lines(plan: RunPlan) -> list[str]:
    """Write the peak term by term."""
    batch = plan.batch
    padded = ", padded" if batch.has_padding else ""
    lines = [f"memory, {_MOMENTS[plan.peak.moment]} ({batch.rows} x {batch.length:,} tokens{padded}):"]
    lines += [f"  {_size(term.size_bytes)}  {term.name}" for term in plan.peak.terms]
    lines.append(f"  {_size(plan.peak_memory_bytes)}  total{limit_words(plan)}")
    return lines


def limit_words(plan: RunPlan) -> str:
    """Write what the peak is compared with: `` of 85.5 GB (the GPU's …): fits``."""
    if plan.limit is None:
        return "; the device's memory is unknown"
    return f" of {gigabytes(plan.limit.size_bytes)} ({plan.limit.reason}): {plan.verdict}"


def meaning(platform: str) -> str:
    """Say what the figure is, where another program shows another one."""
    return _MEANING[device_of(platform)]


def source_lines(plan: RunPlan) -> list[str]:
    """Write where the parts of the peak come from."""
    return ["sources:", *(f"  {source.part}: {source.origin}" for source in plan.sources)]


def left_out(plan: RunPlan, platform: str) -> str:
    """Say what the figures leave out on a CPU; empty elsewhere, and for a model so small that it does not matter."""
    return _ON_A_CPU if platform == "cpu" and plan.duration is not None else ""


def time_lines(plan: RunPlan) -> list[str]:
    """Write tokens and time, with the arithmetic."""
    padding = plan.computed_tokens - plan.tokens
    extra = f" and {padding:,} of padding" if padding else ""
    lines = [f"work: {plan.steps:,} steps, {plan.tokens:,} tokens{extra}"]
    spent = plan.duration
    if spent is None:
        lines.append("time: unknown; the model is too small for this estimate")
        return lines
    low, high = duration(spent.fast_seconds), duration(spent.slow_seconds)
    cost = f"{spent.flop / 1e15:,.0f} PFLOP ({spent.flop / plan.computed_tokens / 1e9:.1f} GFLOP per token)"
    lines.append(f"time: {low} to {high} {spent.basis}: {cost}")
    expanding = "" if spent.rate else f"; {duration(spent.expansion_seconds)} of it dequantising 4-bit weights"
    lines.append(f"  at {spent.source}{expanding}")
    return lines


def alternative_lines(title: str, items: Sequence[Alternative], present: RunPlan) -> list[str]:
    """Write a table of other settings: peak, time as a share of the present ones', what to change."""
    shown = items[:_SHOWN]
    if not any(item.changes for item in shown):
        return []
    lines = [title]
    for item in shown:
        spent, now = item.plan.duration, present.duration
        share = f"{spent.arithmetic_seconds / now.arithmetic_seconds:.0%}" if spent and now else ""
        note = "  (does not fit)" if item.plan.verdict == "does not fit" else ""
        lines.append(f"  {_size(item.plan.peak_memory_bytes)}  {share:>5}  {item.overrides or 'unchanged'}{note}")
    return lines


def _size(size_bytes: int) -> str:
    if size_bytes < _SMALL:
        return f"{size_bytes / 1e6:6.1f} MB"
    return f"{size_bytes / 1e9:6.2f} GB"
