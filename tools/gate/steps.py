"""Steps of a longer command: each announced, timed and run to its end, whatever the others did; then one verdict."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.cli.console import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One part: a command line, or a function that returns an exit code; or neither, and the reason it is skipped."""

    name: str
    run: Sequence[str] | Callable[[], int] = ()
    skipped_because: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a step ended: ``passed``, ``failed`` or ``skipped``, after how many seconds."""

    step: Step
    result: str
    seconds: float = 0.0


def run_step(step: Step, folder: Path) -> Outcome:
    """Run one step in a folder; a program that is not there fails the step and says so."""
    if step.skipped_because:
        say(f"── {step.name}: skipped: {step.skipped_because}", "yellow")
        return Outcome(step, "skipped")
    say(f"── {step.name}", "bold")
    started = time.monotonic()
    try:
        code = step.run() if callable(step.run) else subprocess.run(list(step.run), cwd=folder, check=False).returncode
    except OSError as exc:
        say(f"{step.name} could not start: {exc}", "red")
        code = 1
    sys.stdout.flush()  # or, in a log file, a step's results would follow the next step's
    return Outcome(step, "failed" if code else "passed", time.monotonic() - started)


def run_steps(steps: Sequence[Step], folder: Path, next_command: str = "") -> int:
    """Run all steps, show how each ended, and return 1 where any failed, else 0."""
    outcomes = [run_step(step, folder) for step in steps]
    colours = {"passed": "green", "failed": "red", "skipped": "yellow"}
    say()
    for outcome in outcomes:
        say(f"{outcome.result:>7}  {outcome.step.name}  {outcome.seconds:.1f} s", colours[outcome.result])
    counts = {result: sum(outcome.result == result for outcome in outcomes) for result in colours}
    verdict = ", ".join(f"{count} {result}" for result, count in counts.items() if count or result != "skipped")
    follow_up = f". Next: {next_command}" if next_command and not counts["failed"] else ""
    say(f"{verdict}{follow_up}", "bold")
    return 1 if counts["failed"] else 0
