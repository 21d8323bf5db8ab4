"""Create a stack's environment exactly as its lock pins it; do nothing where it is up to date.

Run as:
    make setup                     # .venv with the current stack
    make setup STACK=reference     # .venv-reference
    make setup ARGS="--with attention"     # FlashAttention 4 beside the current stack; later calls keep it
    make setup-m4                  # .venv-m4, from setup_m4.sh, which checks the Mac first and tests its GPU last
    python3 -m tools.setup_environment --dev    # .venv-dev, what `make check` runs with

Standard library only, and for Python 3.9 on: it is what a new machine runs first.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.command import command_parser, run_main
from kit.cli.console import fail, say
from kit.cli.interpreter import PROJECT_ROOT
from kit.stacks.locks import ATTENTION, DEV, STAMP, Lock, digest, packages
from tools.setup.rules import (
    Host,
    Refusal,
    disk_used,
    lock_for,
    package_cache,
    probe_host,
    refuse_disks,
    refuse_folder,
    refuse_platform,
    refuse_python,
    refuse_spaces,
)
from tools.setup.uv import SetupError, base_python, ensure_uv, run_uv

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

ENVIRONMENT_PYTHON = (3, 11)
_FOLDERS = {"current": ".venv", "reference": ".venv-reference", "m4": ".venv-m4", "dev": ".venv-dev"}
_NEXT = {"dev": "make check", "m4": "make validate CONFIG=configs/training_config_m4.yaml"}
_WAITS_S = (2, 8, 32)


@dataclass(frozen=True)
class Plan:
    """What is to be made: an environment for ``stack`` in ``folder`` from the lock at ``requirements``.

    ``added`` is a lock whose packages come beside those.
    """

    stack: str
    root: Path
    folder: Path
    requirements: Path
    needed_bytes: int
    added: Path | None = None

    @property
    def python(self) -> Path:
        """The environment's own interpreter."""
        return self.folder / "bin" / "python"

    @property
    def stamp(self) -> Path:
        """The file that, written last, says that the environment is complete."""
        return self.folder / STAMP

    @property
    def added_stamp(self) -> Path:
        """The file that says from which text the lock that was added was installed; there is none without one."""
        return self.folder / ".kit-added"

    @property
    def added_digest(self) -> str:
        """Hash of the lock that is added; empty without one."""
        return digest(self.added.read_text(encoding="utf-8")) if self.added else ""


def python_works(plan: Plan) -> bool:
    """Tell whether the environment's interpreter starts and is the Python the stacks are locked for."""
    if not plan.python.exists():
        return False
    test = f"import sys; sys.exit(sys.version_info[:2] != {ENVIRONMENT_PYTHON})"
    try:
        return (
            subprocess.run([str(plan.python), "-I", "-S", "-c", test], capture_output=True, check=False).returncode == 0
        )
    except OSError:
        return False


def is_complete(plan: Plan, lock_text: str) -> bool:
    """Tell whether the environment was made, to its end, from this very lock."""
    found = [path.read_text(encoding="utf-8") if path.exists() else "" for path in (plan.stamp, plan.added_stamp)]
    return found == [digest(lock_text), plan.added_digest] and python_works(plan)


def create_interpreter(plan: Plan, uv: Path) -> None:
    """Make the empty environment, from this Python where it is the right one, else from one that uv finds or fetches.

    Raises:
        SetupError: There is none, with where to get it.
    """
    create = ["venv", "--quiet", "--clear", "--no-project", "--python"]
    if sys.version_info[:2] == ENVIRONMENT_PYTHON:
        run_uv(uv, [*create, base_python(), str(plan.folder)], f"uv could not create {plan.folder}")
        return
    version = ".".join(map(str, ENVIRONMENT_PYTHON))
    # On a Mac uv would also take an Intel Python, left over from an older machine, which gets no MPS.
    asked = f"cpython-{version}-macos-aarch64" if platform.system() == "Darwin" else version
    try:
        run_uv(uv, [*create, asked, str(plan.folder)], f"uv could not create {plan.folder}")
    except SetupError as exc:
        raise SetupError(
            f"no Python {version} was found on this machine, and uv could not install one: {exc.message}",
            f"install it (Debian 12: apt-get install python{version}; macOS: brew install python@{version}), "
            "then run the command again",
            is_temporary=exc.is_temporary,
        ) from exc


def make_environment(plan: Plan, lock_text: str) -> None:
    """Bring the environment to what the lock says, from wherever it stands.

    Raises:
        SetupError: It cannot be done, with the reason and the fix.
    """
    uv = ensure_uv(plan.root)
    if not python_works(plan):
        state = "Replacing" if plan.folder.exists() else "Making"
        say(f"{state} {plan.folder.name} with Python {'.'.join(map(str, ENVIRONMENT_PYTHON))}")
        create_interpreter(plan, uv)
    else:
        plan.stamp.unlink(missing_ok=True)
        say(f"Bringing {plan.folder.name} up to date: installed packages stay")
    say(f"Installing {len(packages(lock_text))} packages ({plan.needed_bytes / 10**9:.1f} GB) → {plan.folder.name}")
    sync = ["pip", "sync", "--require-hashes", "--only-binary", ":all:", "--python", str(plan.python)]
    locks = [str(path) for path in (plan.requirements, plan.added) if path]
    run_uv(uv, [*sync, *locks], "uv could not install the packages")
    plan.added_stamp.unlink(missing_ok=True)
    if plan.added:
        plan.added_stamp.write_text(plan.added_digest, encoding="utf-8")
    plan.stamp.write_text(digest(lock_text), encoding="utf-8")


def with_retries(work: Callable[[], None], waits: Sequence[float], sleep: Callable[[float], object]) -> None:
    """Do something once more after each of these waits, in seconds, as long as only the network is in the way.

    Raises:
        SetupError: Something else is, or the network still is.
    """
    try:
        work()
    except SetupError as exc:
        if not (exc.is_temporary and waits):
            raise
        say(f"{exc.message}; trying again in {waits[0]:g} s, {len(waits)} more before giving up", "yellow")
        sleep(waits[0])
        with_retries(work, waits[1:], sleep)


def refuse(plan: Plan, host: Host, *, skip_disk_check: bool) -> Refusal | None:
    """Find the first reason why the environment cannot be made here, cheapest question first."""
    refusal = refuse_python(host) or (refuse_platform(host, plan.stack) if plan.stack != "dev" else None)
    refusal = refusal or refuse_folder(plan.root) or refuse_spaces(plan.folder, plan.stack)
    if refusal or skip_disk_check:
        return refusal
    missing = max(plan.needed_bytes - disk_used(plan.folder), 0)
    return refuse_disks(missing, plan.folder, package_cache())


def wait_for_other(root: Path) -> Any:
    """Hold the project's set-up lock until this process ends; two set-ups at once would mix their files."""
    import fcntl  # not on Windows, which was refused before

    (root / ".cache").mkdir(exist_ok=True)
    handle = (root / ".cache" / "setup.lock").open("w", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("Waiting for another set-up of this project")
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as exc:
        say(f"warning: no locks here ({exc.strerror}): do not run two set-ups of this project at once", "yellow")
    return handle


def set_up(plan: Plan, host: Host, *, skip_disk_check: bool, dry_run: bool = False, waits: Sequence[float] = ()) -> int:
    """Make the environment unless it is there, or only show what would be done; return the exit code."""
    try:
        lock_text = plan.requirements.read_text(encoding="utf-8")
    except OSError as exc:
        return fail(
            f"{plan.requirements}: the lock cannot be read: {exc.strerror}", "git checkout the file, or make lock"
        )
    if is_complete(plan, lock_text):
        say(f"{plan.folder.name} is up to date")
        return 0
    started = time.monotonic()
    refusal = refuse(plan, host, skip_disk_check=skip_disk_check)
    if refusal:
        return fail(refusal.message, refusal.fix)
    if dry_run:
        size = f"{len(packages(lock_text))} packages ({plan.needed_bytes / 10**9:.1f} GB)"
        say(f"would install {size} from {plan.requirements.name} → {plan.folder.name}")
        return 0
    held = wait_for_other(plan.root)
    try:
        if not is_complete(plan, lock_text):
            with_retries(lambda: make_environment(plan, lock_text), waits, time.sleep)
    except SetupError as exc:
        return fail(exc.message, exc.fix)
    finally:
        held.close()
    next_command = _NEXT.get(plan.stack, "make detect")
    say(f"{plan.folder.name} is ready after {time.monotonic() - started:.0f} s. Next: {next_command}", "green")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(__doc__, "setup_environment.py")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--stack", choices=("current", "reference"), default="current", help="default: %(default)s")
    which.add_argument(
        "--m4", action="store_const", const="m4", dest="stack", help="a Mac's own environment, for setup_m4.sh"
    )
    which.add_argument("--dev", action="store_const", const="dev", dest="stack", help="the tools of `make check`")
    parser.add_argument("--folder", type=Path, help="create it here instead of .venv, .venv-reference, …")
    parser.add_argument("--lock", type=Path, help="install this lock instead of the stack's own")
    parser.add_argument("--with", dest="added", choices=("attention",), help="FlashAttention 4 too: current, on Linux")
    parser.add_argument("--without", dest="left_out", choices=("attention",), help="remove it again")
    parser.add_argument("--skip-disk-check", action="store_true", help="for packages that uv has cached")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be done")
    parser.add_argument("--no-retry", action="store_true", help="give up as soon as the network fails")
    return parser.parse_args(argv)


def plan_for(args: argparse.Namespace, lock: Lock) -> Plan:
    """Turn the command line into what is to be made; what was added once stays until it is taken out."""
    plan = Plan(
        stack=args.stack,
        root=PROJECT_ROOT,
        folder=(args.folder or PROJECT_ROOT / _FOLDERS[args.stack]).absolute(),
        requirements=(args.lock or PROJECT_ROOT / lock.target).absolute(),
        needed_bytes=0 if args.lock else lock.installed_bytes,
    )
    if args.left_out or not (args.added or plan.added_stamp.exists()):
        return plan
    return replace(
        plan, added=PROJECT_ROOT / ATTENTION.target, needed_bytes=plan.needed_bytes + ATTENTION.installed_bytes
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 where the environment is there, 2 where it cannot be made, 130 on Ctrl-C, 143 on SIGTERM."""
    args = parse(argv)
    host = probe_host()
    lock = DEV if args.stack == "dev" else lock_for(host, args.stack)
    if args.added and lock.target != ATTENTION.beside:
        return fail("--with attention: FlashAttention 4 is for the current stack on Linux", "leave it out")
    try:
        waits = () if args.no_retry else _WAITS_S
        plan = plan_for(args, lock)
        return set_up(plan, host, skip_disk_check=args.skip_disk_check, dry_run=args.dry_run, waits=waits)
    except KeyboardInterrupt:
        say("\nstopped; run the same command again to continue")
        return 130


if __name__ == "__main__":
    run_main(main)
