"""Compute every checksum of a run again: receipt, metrics, adapter, checkpoints, data, base model.

Run as:
    python scripts/kit verify my-run          (or: make verify RUN=my-run) outputs/my-run, or any folder
    python scripts/kit verify newest --json   the newest run; one JSON object on stdout

A single changed bit is found and its file named. Exit codes: 0 everything is as the run wrote it, 1 something is not,
2 wrong use.
"""

from __future__ import annotations

import argparse

from kit.cli.command import found_and_fix
from kit.cli.console import fail
from kit.cli.findings import as_json, conclude, exit_code, render
from kit.run_folder.history import NEWEST, RunError, find_run
from kit.runs.verify import verify


def run(options: argparse.Namespace) -> int:
    try:
        folder = find_run(options.run)
    except RunError as exc:
        found, fix = found_and_fix(exc)
        return fail(found, f"{fix}: make verify RUN=NAME")
    findings = verify(folder)
    code = exit_code(findings)
    if options.json:
        print(as_json(findings, run=str(folder)))
        return code
    render(findings)
    conclude("not what the run wrote" if code else "what is there is what the run wrote", findings)
    return code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", nargs="?", default=NEWEST, help="its name under outputs/, its folder, or newest (default)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
