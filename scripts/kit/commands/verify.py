"""Recompute every checksum of a run: receipt, metrics, adapter, checkpoints, data, base model.

Run as:
    python scripts/kit verify my-run          (or: make verify RUN=my-run) outputs/my-run, or any run directory
    python scripts/kit verify newest --json   the newest run; one JSON object on stdout

Names the file of a single changed bit. Exit codes: 0 everything is as the run wrote it, 1 something is not,
2 wrong use.
"""

from __future__ import annotations

import argparse

from kit.cli.command import found_and_fix
from kit.cli.console import fail
from kit.cli.findings import as_json, conclude, exit_code, render
from kit.run_directory.history import NEWEST, RunError, find_run
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
    conclude("files differ from what the run wrote" if code else "the files found are as the run wrote them", findings)
    return code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", default=NEWEST, help="a run directory or run name; default: newest")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
