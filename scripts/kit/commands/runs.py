"""List the runs on this machine.

Run as:
    python scripts/kit runs                               (or: make runs)
    python scripts/kit runs --sort eval_loss              lowest first; --reverse: highest first

Reads outputs/, or the directory of --outputs. A run whose receipt says training but whose process is gone is listed as
"killed?". `make diff-run A=… B=…` compares two. Exit codes: 0 shown, 2 wrong use.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from kit.cli.console import say, wants_colour
from kit.run_directory.history import OUTPUTS, RunError, read_run, run_directories
from kit.runs.summary import Summary, summarise
from kit.runs.table import SORT_KEYS, as_data, sort_runs, table_of

SCHEMA_VERSION = 1
_UNLIMITED = 10_000  # columns, where no terminal limits them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sort", choices=SORT_KEYS, default="started", help="the column to sort by (default: started)")
    parser.add_argument("--reverse", action="store_true", help="largest first")
    parser.add_argument("--outputs", type=Path, default=OUTPUTS, help="directory of the runs (default: outputs)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(options: argparse.Namespace) -> int:
    runs, unreadable = _read(options.outputs)
    runs = sort_runs(runs, options.sort, reverse=options.reverse)
    if options.json:
        body = {"schema_version": SCHEMA_VERSION, "runs": [as_data(run) for run in runs], "unreadable": unreadable}
        print(json.dumps(body, indent=2, ensure_ascii=False))
        return 0
    for problem in unreadable:
        say(f"warning: {problem}", "yellow")
    if not runs:
        say(f"{options.outputs} has no runs yet. Next: make demo")
        return 0
    _print_table(runs)
    what = "1 run" if len(runs) == 1 else f"{len(runs):,} runs"
    say(f"{what} in {options.outputs}. Next: make report RUN={runs[-1].folder}", "dim")
    return 0


def _read(outputs: Path) -> tuple[list[Summary], list[str]]:
    """Read every run; one that cannot be read is named and does not hide the others."""
    runs, unreadable = [], []
    for folder in run_directories(outputs):
        try:
            runs.append(summarise(read_run(folder)))
        except RunError as exc:
            unreadable.append(str(exc))
    return runs, unreadable


def _print_table(runs: Sequence[Summary]) -> None:
    from rich.console import Console

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNLIMITED
    table, left_out = table_of(runs, width)
    colour = wants_colour(sys.stdout)
    Console(width=width, no_color=not colour, force_terminal=colour, highlight=False).print(table)
    if left_out:
        say(f"the terminal is too narrow for: {', '.join(left_out)}; --json has everything", "dim")
