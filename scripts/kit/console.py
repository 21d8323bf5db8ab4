"""Colour and streams: results on stdout, talk on stderr, colour only where a person is looking.

Standard library only, because the set-up command prints with it before anything is installed. No secret is shown: see
``kit.redaction``.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from kit.redaction import let_go_of, redact
from kit.screen import one_line, visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34"}
# Failures to write that may be over at the next line: a full disk, a quota, a limit, a reader that cannot keep up.
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EAGAIN, errno.EINTR})


def wants_colour(stream: TextIO) -> bool:
    """Colour on a terminal; ``NO_COLOR`` (any value) turns it off, ``FORCE_COLOR`` on, in that order."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, *styles: str, stream: TextIO) -> str:
    """Wrap text in the named styles where the stream shows colour; what a terminal would act on is written out."""
    text = visible(text)
    if not wants_colour(stream):
        return text
    return f"\033[{';'.join(_CODES[style] for style in styles)}m{text}\033[0m"


def say(text: str = "", *styles: str, lines: bool = False) -> None:
    """Talk to the person on stderr, so that stdout stays free for results.

    Args:
        text: One line, with blank ones in front at most: what comes from files is in it, and begins none of its own.
        styles: See ``paint``.
        lines: The text has several lines.
    """
    rest = text.lstrip("\n")
    blank = text[: len(text) - len(rest)]
    shown = blank + (visible if lines else one_line)(redact(rest))
    print(paint(shown, *styles, stream=sys.stderr) if styles else shown, file=sys.stderr, flush=True)


def fail(message: str, fix: str = "") -> int:
    """Print one error sentence and its fix on stderr; return 2, the exit code of a command used wrongly."""
    print(paint("error:", "red", "bold", stream=sys.stderr), end=" ", file=sys.stderr)
    say(message)
    if fix:
        say(f"  fix: {fix}")
    return 2


def show_answer(text: str) -> None:
    """Write a piece of a model's answer to stdout: for a person on a terminal, as it is for a file or a program."""
    print(visible(text) if sys.stdout.isatty() else text, end="", flush=True)


def leave_quietly() -> None:
    """End without a traceback where whoever read the results has seen enough, as ``head`` has, or is gone.

    Talk that nobody can read any more ends nothing.
    """
    before = sys.excepthook

    def end(kind: type[BaseException], exc: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(exc, OSError) and exc.filename == sys.stdout.name:
            fail(f"standard output cannot be written ({exc.strerror})", "make room, or send it elsewhere")
        elif not isinstance(exc, BrokenPipeError):
            before(kind, exc, traceback)

    def flush() -> None:
        try:
            sys.stdout.flush()
        except OSError as exc:
            let_go_of(sys.stdout)
            if not isinstance(exc, BrokenPipeError):
                end(type(exc), exc, None)
                os._exit(1)  # what was asked for is nowhere, and nothing else changes the code by now

    sys.excepthook = end
    atexit.register(flush)
    _outlive(sys.stderr)


def outlive_readers() -> None:
    """Go on where nobody reads the results either, or their disk is full: no run ends with its window."""
    _outlive(sys.stdout)


def _outlive(stream: TextIO) -> None:
    for name in ("write", "flush"):
        # On the stream itself, so that it stays what libraries ask for. One that takes no attributes is no pipe.
        with contextlib.suppress(AttributeError):
            setattr(stream, name, _outliving(stream, getattr(stream, name)))


def _outliving(stream: TextIO, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        try:
            return method(*arguments)
        except OSError as exc:
            if exc.errno not in _PASSING:
                let_go_of(stream)
            return len(arguments[0]) if arguments else None

    return call


def duration(seconds: float) -> str:
    """Write seconds as ``41 s``, ``3:07 min`` or ``2:05 h`` or ``5 days``."""
    if seconds < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004 - minutes in an hour
        return f"{minutes}:{rest:02d} min"
    if minutes < 48 * 60:
        return f"{minutes // 60}:{minutes % 60:02d} h"
    return f"{minutes / 60 / 24:,.0f} days"
