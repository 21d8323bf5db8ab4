"""Retrain a finished run from its receipt and compare the result: bit by bit where it must be equal.

Run as:
    python scripts/kit reproduce my-run                 (or: make reproduce RUN=my-run) or any run directory
    python scripts/kit reproduce newest --out again     into outputs/again instead of outputs/my-run-reproduced
    python scripts/kit reproduce my-run model.model_name_or_path=models/elsewhere    new paths of data or base model

First lists every mismatch. Other data or another base model end it; other code, packages or machine can change bits,
so losses are then held to a tolerance. The same command resumes a stopped rerun.
Exit codes: 0 the same result, 1 another result or not possible here, 2 wrong use, 130, 143 and 138 stopped by Ctrl-C,
SIGTERM (or SIGHUP) and SIGUSR1 after saving a checkpoint; Ctrl-C once more at a terminal stops at once.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kit.cli.command import refuse
from kit.cli.console import duration, paint, say
from kit.cli.findings import Finding, as_json, conclude, has_errors, render
from kit.cli.foreground import EXIT_CODES
from kit.cli.screen import one_line
from kit.files.numbers import finite, mapping
from kit.run_directory.history import NEWEST, OUTPUTS, Run, RunError, find_run, read_run
from kit.runs.provenance import GPU_ORDER, provenance_here, reasons_for_other_bits
from kit.runs.reproduction import PLACES, check
from kit.runs.rerun import claim, mark, train_again, write_config
from kit.runs.rerun_verdict import BIT_EQUAL, DIFFERENT, judge_rerun
from kit.stacks.registry import make_argument
from kit.stacks.stack import installed_stack

_MOST_THREADS = 4096  # a receipt may say anything


@dataclass(frozen=True)
class Attempt:
    """One run, held against this machine.

    Attributes:
        places: Where its data and its base model are now, by configuration key.
        reasons: Why its bits may differ here; empty where they must not.
    """

    run: Run
    places: dict[str, str]
    findings: list[Finding]
    reasons: list[str]

    @property
    def next_command(self) -> str:
        """What trains it again."""
        stack = make_argument(installed_stack().name)
        given = " ".join(f"{key}={path}" for key, path in self.places.items())
        places = f" SET={shlex.quote(given)}" if given else ""
        return f"make reproduce{stack} RUN={shlex.quote(str(self.run.folder))}{places}"


def run(options: argparse.Namespace) -> int:
    name, places = _places(options)
    earlier = read_run(find_run(name))
    _ = earlier.settings  # refused here where the receipt holds none
    say(f"{earlier.folder}: its receipt against this machine …", "dim")
    here = provenance_here()
    findings = check(earlier, here, places)
    reasons = reasons_for_other_bits(findings, earlier.receipt.get("platform"), here["platform"])
    attempt = Attempt(earlier, places, findings, reasons)
    if has_errors(findings) or options.check_only:
        return _show_check(attempt, as_one_object=options.json)
    folder = _folder(options.out, earlier)
    resume, refusal = claim(folder, earlier, overwrite=options.overwrite)
    if refusal:
        return _show_check(replace(attempt, findings=[*findings, refusal]), as_one_object=options.json)
    render([finding for finding in findings if finding.severity == "warning"], sys.stderr)
    try:
        code = _train(attempt, folder, resume=resume)
        return code or _compare(attempt, folder, as_one_object=options.json)
    except OSError as exc:
        return refuse(exc)


def _train(attempt: Attempt, folder: Path, *, resume: bool) -> int:
    """Train it again; return 0 where it came to its end."""
    run = attempt.run
    took = finite(run.receipt.get("seconds"))
    beside = f" (the run took {duration(took)})" if took is not None else ""
    how = "resuming the rerun" if resume else "retraining"
    say(f"{how}, in {folder}{beside}; {_expected(attempt.reasons)}", "bold")
    mark(folder, run, verdict=None)
    threads = mapping(run.receipt.get("compute")).get("threads")
    usable = threads if isinstance(threads, int) and 0 < threads <= _MOST_THREADS else None
    code = train_again(write_config(folder, run, attempt.places), resume=resume, threads=usable)
    if code in EXIT_CODES:
        say("stopped; repeat the command to resume the rerun", "yellow")
        return code
    if code:
        say(f"the rerun did not finish: fix the error above, then: {attempt.next_command}", "red")
    return min(code, 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", default=NEWEST, help="a run directory or run name; default: newest")
    parser.add_argument("places", nargs="*", metavar="key=path", help=f"its new path: {', '.join(PLACES)}")
    parser.add_argument("--check-only", action="store_true", help="compare without training")
    parser.add_argument("--out", metavar="NAME", help="the rerun's run name or run directory")
    parser.add_argument("--overwrite", action="store_true", help="restart a stopped rerun")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _places(options: argparse.Namespace) -> tuple[str, dict[str, str]]:
    """Return the run's name, and where things are now.

    Raises:
        RunError: Something is given that would make it another run.
    """
    name, given = options.run, list(options.places)
    if "=" in name and not Path(name).exists():
        name, given = NEWEST, [name, *given]
    places = {}
    for text in given:
        key, equals, value = text.partition("=")
        if key not in PLACES or not equals or not value:
            allowed = ", ".join(f"{place}=PATH" for place in PLACES)
            raise RunError(f"{text}: a rerun has the run's own configuration; give only new paths: {allowed}")
        places[key] = value
    return name, places


def _folder(out: str | None, run: Run) -> Path:
    if out is None:
        return run.folder.parent / f"{run.folder.resolve().name}-reproduced"
    return OUTPUTS / out if Path(out).name == out else Path(out).expanduser()


def _expected(reasons: Sequence[str]) -> str:
    if not reasons:
        return "the result must be bit-equal"
    why = f": {reasons[-1]}" if reasons[-1] == GPU_ORDER else ", as the warnings say"
    return f"bits may differ{why}; losses are held to a tolerance"


def _show_check(attempt: Attempt, *, as_one_object: bool) -> int:
    """Show what was found where nothing is trained; return the exit code."""
    findings, reasons = attempt.findings, attempt.reasons
    bad = has_errors(findings)
    if as_one_object:
        more: dict[str, Any] = {"bits_expected": not reasons, "reasons": reasons, "result": None}
        print(as_json(findings, run=str(attempt.run.folder), **more))
        return int(bad)
    render(findings)
    conclude("cannot be reproduced here" if bad else f"can be reproduced here: {_expected(reasons)}", findings)
    print(f"next: {'fix the errors above, then: ' if bad else ''}{one_line(attempt.next_command)}")
    return int(bad)


def _compare(attempt: Attempt, folder: Path, *, as_one_object: bool) -> int:
    """Compare the rerun with the run, write the verdict down and show it; return the exit code."""
    run = attempt.run
    outcome = judge_rerun(run, read_run(folder), attempt.reasons)
    mark(folder, run, **outcome.as_mapping())
    failed = outcome.verdict == DIFFERENT
    if as_one_object:
        more: dict[str, Any] = {"bits_expected": not outcome.reasons, "reasons": outcome.reasons}
        result = {**outcome.as_mapping(), "folder": str(folder)}
        print(as_json([*attempt.findings, *outcome.findings], run=str(run.folder), **more, result=result))
        return int(failed)
    render(outcome.findings)
    colour = "red" if failed else "green" if outcome.verdict == BIT_EQUAL else "yellow"
    print(f"\n{paint(one_line(outcome.sentence), colour, 'bold', stream=sys.stdout)}")
    if failed and not outcome.reasons:
        print("code, packages, data, base model and machine are the run's, so the result should be bit-equal")
    print(one_line(f"next: make diff-run A={shlex.quote(str(run.folder))} B={shlex.quote(str(folder))}"))
    return int(failed)
