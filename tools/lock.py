"""Compile the locks from what their .in files ask for, or tell whether they still match.

Run as:
    make lock                                   # after editing a locks/*.in: changes only what it must
    make lock ARGS=--upgrade                    # the newest of everything the .in files allow
    make lock ARGS="--upgrade-package wandb"    # one package
    make lock ARGS="--upgrade --summary changes.md"   # what changed as Markdown too, for a pull request
    make lock ARGS=--check                      # offline, at once; part of `make check`
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.command import command_parser, refuse, run_main
from kit.cli.console import fail, say
from kit.cli.findings import as_json, exit_code, render, summary
from kit.cli.interpreter import PROJECT_ROOT
from kit.stacks.locks import LOCKS, Lock, check_lock, with_header
from tools.setup.lock_changes import Change, as_lines, as_markdown, changes
from tools.setup.uv import SetupError, ensure_uv, run_uv

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def compile_lock(root: Path, uv: Path, lock: Lock, more: Sequence[str] = (), beside: str = "") -> str:
    """Compile one lock, starting from the versions it holds, and return its new text.

    Args:
        root: The project.
        uv: The program.
        lock: The lock.
        more: More options of uv, this time.
        beside: Text of the lock it is installed beside, where there is one.

    Raises:
        SetupError: uv found no solution or no registry.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "lock.txt"
        if (root / lock.target).exists():
            output.write_text((root / lock.target).read_text(encoding="utf-8"), encoding="utf-8")
        arguments = ["pip", "compile", "--quiet", "--generate-hashes", "--no-header", *lock.options, *more]
        if lock.beside:
            held = Path(folder) / "beside.txt"
            held.write_text(beside, encoding="utf-8")
            arguments += ["--constraint", str(held), "--no-annotate"]  # which would name that file
        arguments += ["--output-file", str(output), lock.source]
        run_uv(uv, arguments, f"{lock.source} has no solution", dict(lock.environment))
        return with_header(root, lock, output.read_text(encoding="utf-8"))


def compile_all(root: Path, more: Sequence[str]) -> dict[str, list[Change]]:
    """Compile every lock; none is written before all have a solution. Return what changed, by lock."""
    uv = ensure_uv(root)
    texts: dict[Lock, str] = {}
    for number, lock in enumerate(LOCKS, start=1):
        say(f"[{number}/{len(LOCKS)}] {lock.source} → {lock.target}")
        beside = next((text for other, text in texts.items() if other.target == lock.beside), "")
        texts[lock] = compile_lock(root, uv, lock, more, beside)
    found = {}
    for lock, text in texts.items():
        target = root / lock.target
        before = target.read_text(encoding="utf-8") if target.exists() else ""
        found[lock.target] = changes(before, text)
        target.write_text(text, encoding="utf-8")
    return found


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line."""
    parser = command_parser(__doc__, "lock.py")
    parser.add_argument("--check", action="store_true", help="only tell, offline, whether each lock matches its .in")
    parser.add_argument("--json", action="store_true", help="with --check: findings as one JSON object")
    parser.add_argument("--upgrade", action="store_true", help="take the newest of everything the .in files allow")
    parser.add_argument("--upgrade-package", action="append", default=[], metavar="NAME", help="take its newest")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="write what changed as Markdown, for a review")
    args = parser.parse_args(argv)
    if args.summary:
        args.summary = args.summary.absolute()
    more = ["--upgrade"] if args.upgrade else [f"--upgrade-package={name}" for name in args.upgrade_package]
    return args, more


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args, more = parse(argv)
    if args.check:
        findings = [check_lock(PROJECT_ROOT, lock) for lock in LOCKS]
        if args.json:
            print(as_json(findings))
        else:
            render(findings)
            print(f"locks: {summary(findings)}")
        return exit_code(findings)
    os.chdir(PROJECT_ROOT)  # uv writes the sources' paths into the lock as they were given: keep them relative
    try:
        found = compile_all(PROJECT_ROOT, more)
        if args.summary:
            args.summary.write_text(as_markdown(found), encoding="utf-8")
    except OSError as exc:
        return refuse(exc)
    except SetupError as exc:
        return fail(exc.message, exc.fix)
    print("\n".join(as_lines(found)))
    say("The locks match their sources. Next: make setup && make check", "green")
    return 0


if __name__ == "__main__":
    run_main(main)
