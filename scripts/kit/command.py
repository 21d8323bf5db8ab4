"""How a command begins and ends: its parser from its docstring, a mistake as one sentence with its fix.

Standard library only, and for Python 3.9 on: the set-up command is one.
"""

from __future__ import annotations

import argparse
import signal
from typing import TYPE_CHECKING

from kit.console import fail, leave_quietly, outlive_readers
from kit.redaction import guard_output
from kit.screen import one_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

_INTERRUPTED = 128 + signal.SIGINT


class _Parser(argparse.ArgumentParser):
    """Argparse names arguments as they are, and a shell's pattern takes in file names of others."""

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


def command_parser(docstring: str | None, name: str) -> argparse.ArgumentParser:
    """Return a parser that shows a command's docstring: its first line before the options, the rest after them.

    Args:
        docstring: The command's ``__doc__``.
        name: The command as it is typed, such as ``train.py``.
    """
    first, _, rest = (docstring or "").partition("\n\n")
    return _Parser(prog=name, description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)


def found_and_fix(mistake: Exception) -> tuple[str, str]:
    """Part the text of a mistake into what was found and, behind its last semicolon, the fix."""
    found, _, fix = str(mistake).rpartition("; ")
    return found, fix


def refuse(mistake: Exception) -> int:
    """Say a mistake and its fix on stderr; return 2, the exit code of a command used wrongly."""
    return fail(*found_and_fix(mistake))


def run_main(main: Callable[[], int], *, outlives_readers: bool = False) -> NoReturn:
    """Run a command from its first word to its last, and end the process.

    Args:
        main: The command; what it returns is the exit code.
        outlives_readers: It goes on where whoever read its output is gone.

    Raises:
        SystemExit: Always, with the exit code.
    """
    guard_output()
    leave_quietly()
    if outlives_readers:
        outlive_readers()
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
