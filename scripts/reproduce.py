"""Train a finished run again from its receipt, and say whether the same came out: bit by bit where that must be.

Run as:
    python scripts/reproduce.py my-run                 (or: make reproduce RUN=my-run) outputs/my-run, or any folder
    python scripts/reproduce.py my-run --check-only    only hold the receipt against machine, files and code
    python scripts/reproduce.py newest --out again     into outputs/again instead of outputs/my-run-reproduced
    python scripts/reproduce.py my-run model.model_name_or_path=models/elsewhere    where data or base model are now

First every mismatch is named. Other data or another base model end it; other code, packages or machine can change bits,
and the losses are then held to a tolerance. A rerun that was stopped is gone on with by the same command.
Exit codes: 0 the same came out, 1 it did not or cannot be tried, 2 wrong use, 130, 143 and 138 stopped by Ctrl-C,
SIGTERM or SIGUSR1 after saving a checkpoint.
"""

from __future__ import annotations

from kit.interpreter import use_project_python

if __name__ == "__main__":
    use_project_python()

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.console import duration, fail, paint, say
from kit.findings import Finding, as_json, has_errors, render, summary
from kit.records.history import NEWEST, OUTPUTS, Run, RunError, find_run, read_run
from kit.records.numbers import finite, mapping
from kit.records.reproduction import PLACES, check
from kit.records.rerun_verdict import BIT_EQUAL, DIFFERENT, Outcome, judge_rerun
from kit.records.surroundings import reasons_for_other_bits, surroundings
from kit.run.rerun import claim, mark, train_again, write_config
from kit.stack import installed_stack

if TYPE_CHECKING:
    from collections.abc import Sequence

_STOPPED = frozenset({130, 138, 143})


def main(argv: Sequence[str] | None = None) -> int:
    """Check, train again, compare; return the exit code."""
    options = _parser().parse_intermixed_args(argv)
    try:
        name, places = _places(options)
        run = read_run(find_run(name))
        _ = run.settings  # refused here where the receipt holds none
    except RunError as exc:
        found, _, fix = str(exc).rpartition("; ")
        return fail(found, fix)
    say(f"{run.folder}: its receipt against this machine …", "dim")
    here = surroundings()
    findings = check(run, here, places)
    reasons = reasons_for_other_bits(findings, run.receipt.get("platform"), here["platform"])
    if has_errors(findings) or options.check_only:
        return _end(options, run, findings, reasons)
    folder = _folder(options.out, run)
    resume, refusal = claim(folder, run, overwrite=options.overwrite)
    if refusal:
        return _end(options, run, [*findings, refusal], reasons)
    render([finding for finding in findings if finding.severity == "warning"], sys.stderr)
    took = finite(run.receipt.get("seconds"))
    beside = f" (the run took {duration(took)})" if took is not None else ""
    how = "going on with the rerun" if resume else "training it again"
    say(f"{how}, in {folder}{beside}; {_expected(reasons)}", "bold")
    mark(folder, run, verdict=None)
    threads = mapping(run.receipt.get("compute")).get("threads")
    code = train_again(write_config(folder, run, places), resume=resume, threads=threads)
    if code in _STOPPED:
        say("stopped; the same command goes on with the rerun", "yellow")
        return code
    if code:
        say(f"the rerun did not come to its end: why is said above. Mend it, then: {_again(options, run)}", "red")
        return 1
    outcome = judge_rerun(run, read_run(folder), reasons)
    mark(folder, run, **outcome.as_mapping())
    return _show(options, run, folder, findings, outcome)


def _parser() -> argparse.ArgumentParser:
    first, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run", nargs="?", default=NEWEST, help="its name under outputs/, its folder, or newest (default)"
    )
    parser.add_argument("places", nargs="*", metavar="key=path", help=f"where it is now: {', '.join(PLACES)}")
    parser.add_argument("--check-only", action="store_true", help="train nothing")
    parser.add_argument("--out", metavar="NAME", help="the rerun's name under outputs/, or its folder")
    parser.add_argument("--overwrite", action="store_true", help="begin again where a rerun was stopped")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


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
            raise RunError(
                f"{text}: a rerun has the run's own configuration; say only where something is now: {allowed}"
            )
        places[key] = value
    return name, places


def _folder(out: str | None, run: Run) -> Path:
    if out is None:
        return run.folder.parent / f"{run.folder.resolve().name}-reproduced"
    return OUTPUTS / out if Path(out).name == out else Path(out).expanduser()


def _expected(reasons: Sequence[str]) -> str:
    if not reasons:
        return "the same bits must come out"
    more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"bits may differ ({reasons[0]}{more}), so losses are held to a tolerance"


def _again(options: argparse.Namespace, run: Run) -> str:
    given = " ".join(options.places)
    stack = " STACK=reference" if installed_stack().name == "reference" else ""
    return f"make reproduce{stack} RUN={shlex.quote(str(run.folder))}{f' SET={shlex.quote(given)}' if given else ''}"


def _end(options: argparse.Namespace, run: Run, findings: list[Finding], reasons: list[str]) -> int:
    """Say what was found where nothing is trained."""
    bad = has_errors(findings)
    if options.json:
        more: dict[str, Any] = {"run": str(run.folder), "bits_expected": not reasons, "reasons": reasons}
        print(as_json(findings, **more, result=None))
        return int(bad)
    render(findings)
    verdict = "cannot be reproduced here" if bad else f"can be reproduced here: {_expected(reasons)}"
    print(f"\n{paint(verdict, 'red' if bad else 'green', 'bold', stream=sys.stdout)} ({summary(findings)})")
    print(f"next: {'mend the errors above, then: ' if bad else ''}{_again(options, run)}")
    return int(bad)


def _show(options: argparse.Namespace, run: Run, folder: Path, findings: list[Finding], outcome: Outcome) -> int:
    failed = outcome.verdict == DIFFERENT
    if options.json:
        result = {**outcome.as_mapping(), "folder": str(folder)}
        print(as_json([*findings, *outcome.findings], run=str(run.folder), result=result))
        return int(failed)
    render(outcome.findings)
    colour = "red" if failed else "green" if outcome.verdict == BIT_EQUAL else "yellow"
    print(f"\n{paint(outcome.sentence, colour, 'bold', stream=sys.stdout)}")
    if failed and not outcome.reasons:
        print("code, packages, data, base model and machine are the run's: its bits should have come out again")
    print(f"next: python scripts/runs.py --compare {run.folder} {folder}")
    return int(failed)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
