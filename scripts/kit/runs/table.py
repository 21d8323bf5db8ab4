"""Runs in a table: sorted, as wide as the terminal allows, or as plain data."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kit.cli.console import duration, gigabytes
from kit.cli.screen import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

    from kit.runs.summary import Summary

_NOTHING = "-"
_STATE_COLOURS = {"finished": "green", "training": "blue", "started": "blue", "interrupted": "yellow"}


def _started(run: Summary) -> str:
    try:
        return datetime.fromisoformat(run.started or "").astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):  # a time zone can push a date out of the calendar
        return _NOTHING


def _steps(run: Summary) -> str:
    is_whole = run.planned_steps is None or run.steps == run.planned_steps
    return f"{run.steps:,}" if is_whole else f"{run.steps:,}/{run.planned_steps:,}"


def _loss(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value:.4f}" if math.isfinite(value) else "NaN"


def _data(run: Summary) -> str:
    rows = f" ({run.rows:,} rows)" if run.rows is not None else ""
    return f"{run.data}{rows}" if run.data else _NOTHING


def _file_name(path: str | None) -> str:
    return path.replace("\\", "/").rpartition("/")[2] if path else _NOTHING


# Heading, what stands in it, and what --sort calls it; the last ones are the first to go where the terminal is narrow.
COLUMNS: dict[str, tuple[str, Callable[[Summary], str]]] = {
    "name": ("run", lambda run: run.name),
    "state": ("state", lambda run: run.state),
    "loss": ("loss", lambda run: _loss(run.loss)),
    "eval_loss": ("val loss", lambda run: _loss(run.eval_loss)),
    "seconds": ("time", lambda run: _NOTHING if run.seconds is None else duration(run.seconds)),
    "steps": ("steps", _steps),
    "peak_memory_bytes": (
        "peak memory",
        lambda run: _NOTHING if run.peak_memory_bytes is None else gigabytes(run.peak_memory_bytes),
    ),
    "tokens_per_second": (
        "tokens/s",
        lambda run: _NOTHING if run.tokens_per_second is None else f"{run.tokens_per_second:,.0f}",
    ),
    "started": ("started", _started),
    "config": ("config", lambda run: _file_name(run.config)),
    "data": ("data", _data),
}
_NUMBERS = {"loss", "eval_loss", "seconds", "steps", "peak_memory_bytes", "tokens_per_second"}
SORT_KEYS = tuple(COLUMNS)


def sort_runs(runs: Sequence[Summary], key: str, *, reverse: bool = False) -> list[Summary]:
    """Sort by a column, smallest first; runs without a value, or with NaN, come last either way."""

    def has(run: Summary) -> bool:
        value = getattr(run, key)
        return value is not None and not (isinstance(value, float) and math.isnan(value))

    there = sorted((run for run in runs if has(run)), key=lambda run: getattr(run, key), reverse=reverse)
    return there + [run for run in runs if not has(run)]


def table_of(runs: Sequence[Summary], width: int) -> tuple[Table, list[str]]:
    """Lay the runs out in as many columns as fit.

    Returns:
        The table, and the headings that had to be left out.
    """
    from rich.table import Table
    from rich.text import Text

    shown: list[str] = []
    left_out: list[str] = []
    used = 0
    for key, (heading, cell) in COLUMNS.items():
        needed = max(len(heading), *(len(one_line(cell(run))) for run in runs)) + 2
        if left_out or (shown and used + needed > width):
            left_out.append(heading)
            continue
        shown.append(key)
        used += needed
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for key in shown:
        table.add_column(
            COLUMNS[key][0], justify="right" if key in _NUMBERS else "left", no_wrap=True, overflow="ellipsis"
        )
    for run in runs:
        colour = _STATE_COLOURS.get(run.state, "red")
        cells = [Text(one_line(COLUMNS[key][1](run)), style=colour if key == "state" else "") for key in shown]
        table.add_row(*cells)
    return table, left_out


def as_data(run: Summary) -> dict[str, Any]:
    """Return a run as JSON can hold it: NaN, which JSON has not, becomes null beside ``is_finite: false``."""
    values = asdict(run)
    broken = [key for key, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
    return {**values, **dict.fromkeys(broken), "is_finite": not broken}
