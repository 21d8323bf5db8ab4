"""The benchmark's results: what each row is worth against the baseline and the device's ceiling; table, JSON, plot."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from kit.bench.variants import BASELINE, Scale, flop_per_token

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

COLUMNS = ("variant", "rows", "attention", "tokens/s", "ms/step", "peak GB", "of ceiling", "x trl sft")


def with_ratios(
    measured: Sequence[dict[str, Any]], matmul_flop_per_second: float, scale: Scale
) -> list[dict[str, Any]]:
    """Add to each row its share of the ceiling, and its speed as a multiple of the baseline on the same rows.

    The baseline is the mean of its runs, first and last, so that a drift of the machine falls on both sides alike.
    The ceiling is the rate of one large matrix product, over the operations a token costs without recomputation.
    """
    ceiling = matmul_flop_per_second / flop_per_token(scale.shape, scale.length)
    rows = []
    for row in measured:
        plain = [
            other["tokens_per_second"]
            for other in measured
            if other["variant"] == BASELINE and other["workload"] == row["workload"] and "failed" not in other
        ]
        if "failed" in row:
            rows.append(dict(row))
            continue
        rate = row["tokens_per_second"]
        rows.append(
            {
                **row,
                "share_of_ceiling": rate / ceiling,
                "times_baseline": rate / statistics.mean(plain) if plain else None,
            }
        )
    return rows


def fastest(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Any] | None:
    """Return the row with the most tokens a second, full rows before others; None where nothing was measured."""
    done = [row for row in rows if "failed" not in row and row["variant"] in names]
    return max(done, key=lambda row: (row["workload"] == "full", row["tokens_per_second"]), default=None)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Write the rows as a Markdown table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|---|---:|---:|---:|---:|---:|"]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    if "failed" in row:
        return [row["variant"], row["workload"], row["failed"], "", "", "", "", ""]
    peak, ratio = row["peak_memory_bytes"], row["times_baseline"]
    return [
        row["variant"],
        row["workload"],
        row["attention"],
        f"{row['tokens_per_second']:,.0f}",
        f"{row['milliseconds_per_step']:,.0f}",
        "" if peak is None else f"{peak / 1e9:.1f}",
        f"{row['share_of_ceiling']:.0%}",
        "" if ratio is None else f"{ratio:.2f}",
    ]


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw tokens a second as bars, a panel for each workload."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    done = [row for row in rows if "failed" not in row]
    workloads = list(dict.fromkeys(row["workload"] for row in done))
    figure, panels = plt.subplots(1, max(1, len(workloads)), figsize=(12, 5), squeeze=False)
    for panel, workload in zip(panels[0], workloads, strict=False):
        chosen = [row for row in done if row["workload"] == workload][::-1]
        panel.barh(range(len(chosen)), [row["tokens_per_second"] for row in chosen])
        panel.set_yticks(range(len(chosen)), [row["variant"] for row in chosen])
        panel.set_xlabel("tokens a second")
        panel.set_title(f"{workload} rows")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
