"""How a command begins and ends: its parser from its docstring, a mistake as one sentence with its fix.

Standard library only, and for Python 3.9 on: the set-up command is one.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from kit.cli.console import fail, ignore_broken_pipe, say, silence_shutdown
from kit.cli.findings import as_json, render
from kit.cli.foreground import EXIT_CODES, SIGNALS, TerminatedError, exit_on_signals, ignore_signals
from kit.cli.mistakes import FindingsError, WrongUseError
from kit.cli.redaction import guard_output
from kit.cli.refusals import first_line, is_failure, refusal_in
from kit.cli.screen import one_line
from kit.cli.traceback_file import DEBUG, keep_traceback, show_traceback

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

_INTERRUPTED = 128 + signal.SIGINT
_FAILED = 1
A_BUG = "report this as a bug in the kit or in a library"


class _Parser(argparse.ArgumentParser):
    """Argparse names arguments as they are, and a shell's pattern takes in file names of others."""

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


def command_parser(docstring: str | None, name: str) -> argparse.ArgumentParser:
    """Return a parser that shows a command's docstring: its first line before the options, the rest after them.

    Args:
        docstring: The command's ``__doc__``.
        name: The command as it is typed, such as ``kit train``.
    """
    first, _, rest = (docstring or "").partition("\n\n")
    parser = _Parser(prog=name, description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--debug", action=_Debug, nargs=0, default=argparse.SUPPRESS, help="show tracebacks")
    return parser


def parser_of(command: Any) -> argparse.ArgumentParser:
    """Return a command's parser, made by its module."""
    parser = command_parser(command.__doc__, f"kit {command.__name__.rpartition('.')[2].replace('_', '-')}")
    command.add_arguments(parser)
    return parser


def call(command: Any, argv: Sequence[str]) -> int:
    """Run a command in this process; return its exit code. What it refuses to begin with is said here for all of them.

    Args:
        command: Its module, of ``kit.commands``: ``add_arguments(parser)`` and ``run(options)``.
        argv: Its arguments; ``run`` finds them in ``options.argv``.
    """
    parser = parser_of(command)
    # Values that may be told from options by their place alone are also taken behind these.
    is_mixed = any(action.nargs == "*" and not action.option_strings for action in parser._actions)  # noqa: SLF001
    options = (parser.parse_intermixed_args if is_mixed else parser.parse_args)(argv)
    options.argv = list(argv)
    try:
        return int(command.run(options))
    except FindingsError as exc:
        show_traceback(exc)
        if getattr(options, "json", False):
            print(as_json(exc.findings, config=str(getattr(options, "config", None) or "")))
        else:
            render(exc.findings, sys.stderr)
        return exc.exit_code
    except WrongUseError as exc:
        show_traceback(exc)
        return refuse(exc)


class _Debug(argparse.Action):
    """Show tracebacks, in this process and in those it starts."""

    def __call__(self, *_: Any) -> None:
        os.environ[DEBUG] = "1"


def number_within(low: float, high: float = math.inf, kind: type[float] = int) -> Callable[[str], float]:
    """Return what reads an option's number, both ends included: for ``type=`` of ``add_argument``."""

    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            if (kind is float or text.isdecimal()) and low <= kind(text) <= high:
                return kind(text)
        ends = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise argparse.ArgumentTypeError(f"{text!r} is not {'a number' if kind is float else 'an integer'} {ends}")

    return read


def found_and_fix(mistake: Exception) -> tuple[str, str]:
    """Part the text of a mistake into what was found and, behind its last semicolon, the fix."""
    found, _, fix = str(mistake).rpartition("; ")
    return found, fix


def refuse(mistake: Exception) -> int:
    """Say a mistake, or what the system refused, and its fix on stderr; return 2, the code of wrong use."""
    refusal = refusal_in(mistake) if isinstance(mistake, OSError) else None
    return fail(refusal.message, refusal.fix) if refusal else fail(*found_and_fix(mistake))


def run_main(main: Callable[[], int], *, ignores_broken_pipe: bool = False) -> NoReturn:
    """Run a command from its first word to its last, and end the process.

    Args:
        main: The command; what it returns is the exit code.
        ignores_broken_pipe: It goes on where whoever read its output is gone.

    Raises:
        SystemExit: Always, with the exit code.
    """
    guard_output()
    exit_on_signals()
    silence_shutdown()
    if ignores_broken_pipe:
        ignore_broken_pipe()
    threading.excepthook = lambda failure: _report_background_failure(failure.exc_value, failure.thread)
    sys.unraisablehook = lambda failure: _report_background_failure(failure.exc_value, failure.object)
    try:
        code = main()
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except TerminatedError as exc:
        say(f"{signal.Signals(exc.number).name}: stopped", "yellow")
        code = 128 + exc.number
    except BrokenPipeError:  # whoever read the output has seen enough
        code = _FAILED
    except BaseException as exc:
        if not is_failure(exc):
            raise
        code = fail_of(exc)
    # What comes from here on would be the exit code instead. Ctrl-C is left to who waits for an end that hangs.
    ignore_signals(number for number in SIGNALS if number != signal.SIGINT or code in EXIT_CODES)
    raise SystemExit(code)


def fail_of(exc: BaseException) -> int:
    """Say what a command failed of, its fix and where its traceback is; return 1."""
    where = keep_traceback(exc)
    refusal = refusal_in(exc)
    with contextlib.suppress(OSError):  # where not even this can be said
        if refusal:
            fail(refusal.message, f"{refusal.fix}; {where}")
        else:
            fail(f"{type(exc).__name__}: {first_line(exc)}", f"{A_BUG}; {where}")
    return _FAILED


def _report_background_failure(exc: BaseException | None, origin: object) -> None:
    """Say what failed beside the command, in a thread of its own or as something was thrown away: it goes on."""
    if exc is None or not is_failure(exc):
        return
    with contextlib.suppress(OSError, ValueError):
        name = origin.name if isinstance(origin, threading.Thread) else type(origin).__name__
        say(f"warning: {name} failed in the background: {type(exc).__name__}: {first_line(exc)}", "yellow")
        say(f"  {keep_traceback(exc)}")
