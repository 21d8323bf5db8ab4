"""What is measured on a processor, as tables: data preparation, and what a person waits for. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.data_preparation.measure import Run
from bench.data_preparation.table import table

if TYPE_CHECKING:
    from collections.abc import Mapping


def waiting_table(results: Mapping[str, dict[str, Any]]) -> list[str]:
    """Write what a person waits for, by measurement, as a Markdown table, with the operators of a step below it."""
    lines = ["| what | the kit, s | the other, s | other / kit | goal |", "|---|---:|---:|---:|---:|"]
    for name, found in results.items():
        if "ours_seconds" not in found:
            continue
        unsure = found["uncertainty"]
        digits = 2 if unsure is None else 3  # a ratio with an uncertainty is measured to more than a hundredth
        other, ratio, goal = found["other_seconds"], found["ratio"], found["goal"]
        cells = [
            f"{found['ours_seconds']:.{digits}f}",
            "" if other is None else f"{other:.{digits}f}",
            ("" if ratio is None else f"{ratio:.{digits}f}") + ("" if unsure is None else f" ± {unsure:.{digits}f}"),
            "" if goal is None else f"{goal:g}",
        ]
        lines.append(f"| {name.removeprefix('cli/')} | {' | '.join(cells)} |")
    calls = results.get("cli/operators a step")
    if calls:
        told = f"the kit's {calls['kit']:,.0f}, trl's {calls['trl']:,.0f}"
        lines += ["", f"torch operators per step, adapter in bfloat16: {told}."]
    return lines


def data_lines(results: Mapping[str, dict[str, Any]]) -> list[str]:
    """Write how fast rows become training data, by measurement, as a Markdown table."""
    runs: dict[int, list[Run]] = {}
    versions: dict[str, str] = {}
    for name, found in sorted(results.items(), key=lambda item: int(item[0].split("/")[1])):
        told = dict(found)
        size, version = int(name.split("/")[1]), told.pop("version", "")
        runs.setdefault(size, []).append(Run(**told))
        versions[told["tool"]] = version
    return table(runs, versions)
