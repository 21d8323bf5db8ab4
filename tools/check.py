"""The gate: everything a change must pass, the same here and in CI. All parts run, then the verdict.

Run as:
    make check
    make check ARGS=--without-tests      where `make test`, which holds the fast ones too, follows anyway
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from kit.cli.command import command_parser, run_main
from kit.cli.console import fail
from kit.cli.failures import run_check
from kit.cli.findings import exit_code, render
from kit.cli.interpreter import PROJECT_ROOT
from kit.stacks.locks import LOCKS, check_lock
from tools.gate.at_once import at_once
from tools.gate.shell_rules import check_shell_scripts
from tools.gate.steps import Step, run_steps
from tools.gate.tracked_files import check_tracked_files, shell_scripts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_ENVIRONMENT = PROJECT_ROOT / ".venv" / "bin" / "python"
_TOOLS = PROJECT_ROOT / ".venv-dev" / "bin"


def check_locks() -> int:
    """Show whether every lock still matches its source."""
    findings = run_check(lambda: [check_lock(PROJECT_ROOT, lock) for lock in LOCKS], "locks")
    render(findings)
    return exit_code(findings)


def check_files() -> int:
    """Show what tracked files must not contain, and shell scripts not use."""
    findings = run_check(lambda: check_tracked_files(PROJECT_ROOT), "files")
    findings += run_check(lambda: check_shell_scripts(PROJECT_ROOT, shell_scripts(PROJECT_ROOT)), "shell")
    render(findings)
    return exit_code(findings)


def gate(tools: Path, python: Path, *, with_tests: bool = True) -> list[Step]:
    """Return the gate's parts, the quickest answers first."""
    tests = [Step("fast tests", [str(python), "-m", "pytest", "-q", "-m", "not stacks and not slow", *at_once()])]
    scripts = [str(path.relative_to(PROJECT_ROOT)) for path in shell_scripts(PROJECT_ROOT)]
    return [
        Step("format", [str(tools / "ruff"), "format", "--check", "."]),
        Step("lint", [str(tools / "ruff"), "check", "."]),
        Step("locks", check_locks),
        Step("tracked files", check_files),
        Step("generated docs", [str(python), "-m", "tools.document", "--check"]),
        Step("measured docs", [str(python), "-m", "bench.document", "--check"]),
        Step("shell", [str(tools / "shellcheck"), *scripts])
        if scripts
        else Step("shell", skipped_because="no scripts"),
        Step("dockerfile", [str(tools / "hadolint"), "docker/Dockerfile"]),
        Step("rooms", ["env", "PYTHONPATH=scripts", str(tools / "lint-imports"), "--no-cache"]),
        Step("types", [str(tools / "mypy"), "--python-executable", str(python)]),
        *(tests if with_tests else ()),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = command_parser(__doc__, "check.py")
    parser.add_argument("--without-tests", action="store_true", help="leave the fast tests to `make test`")
    options = parser.parse_args(argv)
    if shutil.which("git") is None or not (PROJECT_ROOT / ".git").exists():
        return fail("the gate judges the files git tracks, and this is no git checkout", "git clone the project")
    steps = gate(_TOOLS, _ENVIRONMENT, with_tests=not options.without_tests)
    return run_steps(steps, PROJECT_ROOT, next_command="make test")


if __name__ == "__main__":
    run_main(main)
