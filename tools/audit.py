"""Look for known vulnerabilities in what the locks pin, and say what could not be looked up.

Run as:
    make audit                                     # ask the package index's own advisories, lock by lock
    make audit ARGS="--service osv"                # ask osv.dev
    make audit FROM=advisories.zip                 # no network: a saved database, as osv.dev exports it, or a folder
    make audit ARGS="--lock reference --json"      # one lock; one JSON object on stdout

A vulnerability that is lived with stands in locks/accepted-vulnerabilities.yaml, with its reason and an end.
Exit codes: 0 every package was looked up and nothing is left to mend, 1 something is, 2 wrong use or no tool,
77 nothing was found, and not everything could be looked up: that is no "ok".
"""

from __future__ import annotations

from kit.cli.interpreter import use_project_python

if __name__ == "__main__":
    use_project_python()

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.command import command_parser, run_main
from kit.cli.console import fail, paint, say
from kit.cli.findings import Finding, as_json, exit_code, has_errors, render, summary
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.error import ConfigError
from kit.stacks.locks import LOCKS, Lock, packages
from tools.advisories.accepted import FILE, read_accepted
from tools.advisories.answer import canonical
from tools.advisories.database import DatabaseError, look_up, read_database
from tools.advisories.judge import judge, judge_age
from tools.advisories.service import SERVICES, ask, ensure_pip_audit
from tools.setup.uv import SetupError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from tools.advisories.answer import Answer

UNCHECKED = 77  # what .ci/run and autotools call "could not be run here"


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, judge, show; return the exit code."""
    options = _parser().parse_args(argv)
    locks = [lock for lock in LOCKS if not options.lock or lock.name in options.lock]
    today = datetime.now(UTC).date()
    try:
        accepted = read_accepted(PROJECT_ROOT / FILE)
        pins = {lock: _pins(lock) for lock in locks}
        findings: list[Finding] = []
        if options.source:
            answers, findings = _from_database(options.source, pins)
        else:
            answers = _from_service(options, pins)
    except ConfigError as exc:
        render(exc.findings, sys.stderr)
        return 2
    except (SetupError, _Unusable) as exc:
        return fail(exc.message, exc.fix)
    # Which entries are of no use can be told only where every lock was looked at.
    entries = accepted if len(locks) == len(LOCKS) else [one for one in accepted if _is_held(one.package, pins)]
    findings += judge(answers, entries, today)
    return _show(findings, answers, json=options.json)


class _Unusable(Exception):  # noqa: N818 - ends this command alone, with its sentence
    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message, self.fix = message, fix


def _pins(lock: Lock) -> dict[str, str]:
    try:
        text = (PROJECT_ROOT / lock.target).read_text(encoding="utf-8")
    except OSError as exc:
        raise _Unusable(
            f"{lock.target}: cannot be read ({exc.strerror})", "git checkout the file, or make lock"
        ) from exc
    return {canonical(name): version for name, version in packages(text).items()}


def _is_held(package: str, pins: dict[Lock, dict[str, str]]) -> bool:
    return any(package in held for held in pins.values())


def _from_service(options: argparse.Namespace, pins: dict[Lock, dict[str, str]]) -> list[Answer]:
    program = ensure_pip_audit(PROJECT_ROOT)
    answers = []
    for number, (lock, held) in enumerate(pins.items(), start=1):
        say(f"[{number}/{len(pins)}] {lock.target}: {len(held)} packages, asked of {options.service} …", "dim")
        answers.append(ask(program, lock, held, options.service))
    return answers


def _from_database(path: Path, pins: dict[Lock, dict[str, str]]) -> tuple[list[Answer], list[Finding]]:
    fix = "name a folder of OSV records, osv.dev's zip archive for the PyPI ecosystem, or a JSON file of them"
    try:
        database = read_database(path.expanduser(), {name for held in pins.values() for name in held})
    except DatabaseError as exc:
        raise _Unusable(f"{path}: {exc}", fix) from exc
    except OSError as exc:
        raise _Unusable(f"{path}: cannot be read ({exc.strerror or exc})", fix) from exc
    age = judge_age(database.newest, datetime.now(UTC).date(), database.count, str(path))
    return [look_up(database, lock, held, f"saved, to {database.newest}") for lock, held in pins.items()], [age]


def _show(findings: list[Finding], answers: list[Answer], *, json: bool) -> int:
    is_complete = not any(finding.severity == "skipped" for finding in findings)
    code = exit_code(findings) or (0 if is_complete else UNCHECKED)
    words = {
        0: ("nothing to mend in what the locks pin", "green"),
        1: ("something to mend in what the locks pin", "red"),
        UNCHECKED: ("no vulnerability was found, and not everything could be looked up: this is no audit", "yellow"),
    }
    if json:
        verdict = "failed" if has_errors(findings) else "passed" if is_complete else "incomplete"
        counts = {
            answer.target: {
                "packages": len(answer.pins),
                "unchecked": len(answer.unchecked),
                "vulnerabilities": len(answer.vulnerabilities),
            }
            for answer in answers
        }
        print(as_json(findings, verdict=verdict, locks=counts))
        return code
    render(findings)
    text, colour = words[code]
    print(f"\n{paint(text, colour, 'bold', stream=sys.stdout)} ({summary(findings)})")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__, "audit.py")
    parser.add_argument("--service", choices=SERVICES, default="pypi", help="whom to ask; default: %(default)s")
    parser.add_argument("--from", dest="source", type=Path, metavar="PATH", help="a saved database instead")
    names = [lock.name for lock in LOCKS]
    parser.add_argument("--lock", action="append", choices=names, help="only this one; may be given again")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


if __name__ == "__main__":
    run_main(main)
