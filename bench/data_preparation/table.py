"""What was measured, as a table for a terminal and for the documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.data_preparation.measure import Run

_OURS = "this kit"


def table(runs: Mapping[int, Sequence[Run]], versions: Mapping[str, str]) -> list[str]:
    """Write the table in Markdown: a line for each size and tool."""
    lines = [
        "| rows | tool | rows/s | seconds | CPU seconds | peak memory | tokens | with loss | this kit is |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for size, found in runs.items():
        ours = next((run for run in found if run.tool == _OURS and not run.failure), None)
        for run in found:
            name = f"{run.tool} {versions.get(run.tool, '')}".strip()
            if run.failure:
                lines.append(f"| {size:,} | {name} | {run.failure} | | | | | | |")
                continue
            ratio = f"{ours.rate / run.rate:.1f} times as fast" if ours and not run.tool.startswith(_OURS) else ""
            spent = f"{run.seconds:,.1f} | {run.cpu_seconds:,.1f} | {run.peak_bytes / 2**20:,.0f} MB"
            trained = f"{run.trained:,}" if run.trained else ""
            lines.append(f"| {size:,} | {name} | {run.rate:,.0f} | {spent} | {run.tokens:,} | {trained} | {ratio} |")
    return lines


def verdict(runs: Mapping[int, Sequence[Run]]) -> tuple[str, bool]:
    """Say whether the kit was ahead of every other tool at every size."""
    behind, missing = [], []
    for size, found in runs.items():
        ours = next((run for run in found if run.tool == _OURS), None)
        for run in found:
            if run.failure:
                missing.append(f"{run.tool} at {size:,} rows")
            elif ours and not run.tool.startswith(_OURS) and run.rate >= ours.rate:
                behind.append(f"{run.tool} at {size:,} rows")
    words = f"behind {', '.join(behind)}" if behind else "ahead of every measured tool"
    if missing:
        words += f"; not measured: {', '.join(missing)}"
    return words, not behind
