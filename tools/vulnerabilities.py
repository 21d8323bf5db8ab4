"""Look for known vulnerabilities in what the locks pin, with pip-audit.

Run as:
    make audit                            # every lock
    make audit ARGS="--lock reference"    # only this one; may be given again

locks/accepted-vulnerabilities.yaml lists the vulnerabilities that pip-audit ignores, each with a reason and an end.
Exit codes: 0 every package was looked up and nothing is left to fix; 1 a vulnerability, or an entry of the list that is
over or unneeded; 2 wrong use, or a lock that could not be audited.
"""

from __future__ import annotations

from kit.cli.interpreter import use_project_python

if __name__ == "__main__":
    use_project_python()

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from cerberus import Validator

from kit.cli.command import command_parser, refuse, run_main
from kit.cli.console import fail, paint, say
from kit.cli.findings import error, render
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.error import ConfigError
from kit.config.yaml_reader import read_document
from kit.stacks.locks import AUDIT, LOCKS, packages
from tools.setup.tool import ensure_tool
from tools.setup.uv import SetupError, tool_environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kit.stacks.locks import Lock

FILE = "locks/accepted-vulnerabilities.yaml"
_LONGEST = timedelta(days=366)
_TEXT = {"type": "string", "empty": False}
_VERDICTS: Final = {
    0: ("nothing to fix in what the locks pin", "green"),
    1: ("something to fix in what the locks pin", "red"),
    2: ("not everything could be looked up: this is no audit", "yellow"),
}


def read_accepted(path: Path, pinned: set[tuple[str, str]], today: date) -> list[dict[str, Any]]:
    """Read the accepted vulnerabilities.

    Args:
        path: The list.
        pinned: Every name and version that a lock pins.
        today: The day that an entry must not be over on.

    Raises:
        ConfigError: The file cannot be read, or an entry is over, unneeded or not what it has to be.
    """
    day = {"type": "date", "coerce": date.fromisoformat, "max": today + _LONGEST}
    entry = {"id": _TEXT, "package": _TEXT, "version": _TEXT, "reason": {"type": "string", "minlength": 20}}
    entries = {"type": "list", "schema": {"type": "dict", "schema": {**entry, "expires": day}}}
    checker = Validator({"accepted": entries}, require_all=True)
    if not checker.validate(read_document(path).values):
        problem = f"is no list of entries with a reason and an end within a year: {checker.errors}"
        raise ConfigError([error("audit.accepted_file", problem, "docs/SECURITY.md shows an entry", str(path))])
    accepted: list[dict[str, Any]] = checker.document["accepted"]
    findings = []
    for one in accepted:
        about = f"{one['id']} of {one['package']} {one['version']} was accepted"
        if (one["package"], one["version"]) not in pinned:
            findings.append(error("audit.unneeded", f"{about}, and no lock pins that", "delete the entry", str(path)))
        elif one["expires"] < today:
            fix = "review it: a new reason and date, or a newer version"
            findings.append(error("audit.expired", f"{about} until {one['expires']}, which is over", fix, str(path)))
    if findings:
        raise ConfigError(findings)
    return accepted


def audit(program: Path, lock: Lock, ignored: Sequence[str]) -> int:
    """Run pip-audit on a lock, show what it says, and return the exit code."""
    # Strict, because without it a package that the service does not know passes: behind a mirror, every one of them.
    command = [str(program), "--requirement", lock.target, "--disable-pip", "--strict", "--aliases", "on"]
    command += ["--desc", "off", "--progress-spinner", "off", *(f"--ignore-vuln={one}" for one in ignored)]
    done = subprocess.run(
        command, cwd=PROJECT_ROOT, env=tool_environment(os.environ), capture_output=True, text=True, check=False
    )
    # The last line, because what it fails of may stand under a traceback.
    say(f"{lock.target}: {(done.stderr.splitlines() or ['it said nothing'])[-1]}")
    if done.stdout:
        say(done.stdout.rstrip(), lines=True)
    # It exits with 1 in both cases, but only vulnerabilities make a table.
    return (1 if done.stdout else 2) if done.returncode else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Check the list of accepted ones, audit each lock, show the verdict, and return the exit code."""
    parser = command_parser(__doc__, "audit.py")
    names = [lock.name for lock in LOCKS]
    parser.add_argument("--lock", action="append", choices=names, help="only this one; may be given again")
    wanted = parser.parse_args(argv).lock or names
    try:
        pins = {lock: set(packages((PROJECT_ROOT / lock.target).read_text(encoding="utf-8")).items()) for lock in LOCKS}
        accepted = read_accepted(PROJECT_ROOT / FILE, set().union(*pins.values()), datetime.now(UTC).date())
        program = ensure_tool(PROJECT_ROOT, AUDIT, "pip-audit", size="40 MB")
    except ConfigError as exc:
        render(exc.findings, sys.stderr)
        return exc.exit_code
    except SetupError as exc:
        return fail(exc.message, exc.fix)
    except OSError as exc:
        return refuse(exc)
    codes = [
        audit(program, lock, [one["id"] for one in accepted if (one["package"], one["version"]) in held])
        for lock, held in pins.items()
        if lock.name in wanted
    ]
    code = 1 if 1 in codes else max(codes)
    text, colour = _VERDICTS[code]
    print(paint(text, colour, "bold", stream=sys.stdout))
    return code


if __name__ == "__main__":
    run_main(main)
