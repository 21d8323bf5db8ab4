"""Show what differs between two runs, from which step their numbers differ, and the most likely cause.

Run as:
    python scripts/kit diff-run demo trial          (or: make diff-run A=demo B=trial)
    python scripts/kit diff-run demo                with the newest run
    python scripts/kit diff-run outputs/demo elsewhere/demo --json    folders; one JSON object

Compares configuration, data, code, stack, machine and image, then the results, then losses, gradient norms and
evaluations step by step, to the last bit. Exit codes: 0 compared, 2 wrong use or an unreadable run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.console import fail, paint, say
from kit.cli.screen import one_line
from kit.run_directory.history import NEWEST, OUTPUTS, find_run, read_run
from kit.runs.comparison import GROUPS
from kit.runs.divergence import find_divergence, in_words

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from kit.runs.comparison import Difference
    from kit.runs.divergence import Divergence

SCHEMA_VERSION = 1


def run(options: argparse.Namespace) -> int:
    folders = [find_run(name, options.outputs) for name in (options.a, options.b)]
    if folders[0].resolve() == folders[1].resolve():
        return fail(f"{options.a} and {options.b} are the same run, {folders[0]}", "name two runs (make runs)")
    runs = [read_run(folder) for folder in folders]
    parting = find_divergence(*runs)
    if options.json:
        body = {"schema_version": SCHEMA_VERSION, "runs": [str(folder) for folder in folders], **parting.as_mapping()}
        print(json.dumps(body, indent=2, ensure_ascii=False))
        return 0
    _show(parting, *(one_line(run.name) for run in runs))
    say(f"next: make report RUN={folders[0]}, make report RUN={folders[1]}", "dim")
    return 0


def _show(parting: Divergence, first: str, second: str) -> None:
    rows = [*parting.differences, *parting.results]
    name_width = max(len(one_line(row.name)) for row in rows)
    width = max(len(first), *(len(one_line(row.first)) for row in rows))
    print(f"{'':<{name_width}}  {first:<{width}}  {second}")
    for group in GROUPS:
        _show_group(group, [row for row in parting.differences if row.group == group], name_width, width)
    _show_group("results", parting.results, name_width, width)
    start = f": adapter {parting.adapter_at_start}, order of the rows {parting.order_of_rows}"
    print(_heading("the start") + one_line(start))
    print(_heading("step against step"))
    for name, course in parting.traces.items():
        print(f"{name:<{max(map(len, parting.traces))}}  {one_line(in_words(course))}")
    print(f"\n{_heading(one_line(parting.verdict))}")


def _show_group(name: str, rows: Sequence[Difference], name_width: int, width: int) -> None:
    print(_heading(name) + ("" if rows else ": the same"))
    for row in rows:
        print(f"{one_line(row.name):<{name_width}}  {one_line(row.first):<{width}}  {one_line(row.second)}")


def _heading(text: str) -> str:
    return paint(text, "bold", stream=sys.stdout)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a run directory or run name, or newest")
    parser.add_argument("b", metavar="B", nargs="?", default=NEWEST, help="the other; default: the newest")
    parser.add_argument("--outputs", type=Path, default=OUTPUTS, help="directory of the runs (default: outputs)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
