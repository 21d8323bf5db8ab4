"""Run every command with the project's own Python, whichever ``python`` started it.

Standard library only: it is the first thing a command calls.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.foreground import exit_on_signals
from kit.cli.redaction import guard_output

if TYPE_CHECKING:
    from types import TracebackType

PROJECT_ROOT = Path(__file__).resolve().parents[3]
_NEEDED = ("cerberus", "packaging", "yaml")


def python_path() -> str:
    """Return the PYTHONPATH with which a child started by ``-m`` finds the kit, and all that this process was given."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([str(PROJECT_ROOT / "scripts"), *filter(None, given)]))


def use_project_python() -> None:
    """Start again under ``.venv/bin/python`` where this Python lacks the kit's packages.

    Changes nothing where they are there, so a container, a conda environment or ``.venv-reference`` is used as it is.
    From here on the process prints no secret, a signal ends it in order, and what fails before the command itself
    begins is a sentence too.

    Raises:
        SystemExit: 2, with the command that sets the project up, where there is no environment to go to.
    """
    guard_output()
    exit_on_signals()
    _name_this_user()
    sys.excepthook = _end_in_words
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return
    candidates = [PROJECT_ROOT / name / "bin" / "python" for name in (".venv", ".venv-m4")]
    for python in candidates:
        already_there = Path(sys.prefix).resolve() == python.parent.parent.resolve()
        if python.exists() and not already_there:
            os.execv(str(python), [str(python), *_arguments()])  # noqa: S606 - our own interpreter, no shell
    print(
        f"error: this Python ({sys.executable}) lacks {', '.join(missing)}, and the project has no .venv yet\n"
        "  fix: make setup",
        file=sys.stderr,
    )
    raise SystemExit(2)


def _arguments() -> list[str]:
    """Return what to start again: a file or a folder and its arguments, or ``-m`` and a module's."""
    spec = sys.modules["__main__"].__spec__
    if spec is None or spec.name == "__main__":  # a file, or a folder that holds __main__.py
        return sys.argv
    return ["-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]]


def _name_this_user() -> None:
    """Give a user a name for whom the system has none, as for a container's ``-u 12345``: torch asks at its import."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", str(os.getuid()))


def _end_in_words(_kind: type[BaseException], exc: BaseException, _traceback: TracebackType | None) -> None:
    from kit.cli.command import fail_of

    if not isinstance(exc, KeyboardInterrupt):
        fail_of(exc)
