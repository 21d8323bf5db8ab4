"""Write a run's report: one HTML page, and its curves as a picture to share.

Run as:
    python scripts/kit report                     the newest run      (or: make report)
    python scripts/kit report demo                a run name          (or: make report RUN=demo)

Writes report.html and report.png to the run directory, as every run does at its end; a run that is under way, was
stopped, or failed has a report too. Exit codes: 0 written, 2 no such run, or it cannot be read or written.
"""

from __future__ import annotations

import argparse

from kit.cli.command import refuse
from kit.cli.console import say
from kit.cli.findings import as_json, render
from kit.cli.screen import one_line
from kit.run_directory.history import NEWEST, find_run


def run(options: argparse.Namespace) -> int:
    try:
        folder = find_run(options.run)
        from kit.report.write import write_report

        written = write_report(folder)
    except OSError as exc:
        return refuse(exc)
    verdict = written.verdict
    if options.json:
        files = {"page": str(written.page), "picture": str(written.picture)}
        print(as_json(verdict.findings, run=str(folder), sentence=verdict.sentence, tone=verdict.tone, **files))
        return 0
    print(one_line(verdict.sentence))
    render(verdict.findings)
    print(f"{one_line(written.page)}\n{one_line(written.picture)}")
    say("next: open the page in a browser, or share the picture", "dim")
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", default=NEWEST, help="a run directory or run name; default: newest")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
