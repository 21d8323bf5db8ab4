"""Colour and streams: results on stdout, talk on stderr, colour only where a person is looking.

Standard library only, because the set-up command prints with it before anything is installed. No secret is shown: see
``kit.redaction``.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from kit.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34"}


def wants_colour(stream: TextIO) -> bool:
    """Colour on a terminal; ``NO_COLOR`` (any value) turns it off, ``FORCE_COLOR`` on, in that order."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, *styles: str, stream: TextIO) -> str:
    """Wrap text in the named styles where the stream shows colour, and return it untouched elsewhere."""
    if not wants_colour(stream):
        return text
    return f"\033[{';'.join(_CODES[style] for style in styles)}m{text}\033[0m"


def say(text: str = "", *styles: str) -> None:
    """Talk to the person on stderr, so that stdout stays free for results."""
    text = redact(text)
    print(paint(text, *styles, stream=sys.stderr) if styles else text, file=sys.stderr, flush=True)


def fail(message: str, fix: str = "") -> int:
    """Print one error sentence and its fix on stderr; return 2, the exit code of a command used wrongly."""
    say(f"{paint('error:', 'red', 'bold', stream=sys.stderr)} {message}")
    if fix:
        say(f"  fix: {fix}")
    return 2


def leave_quietly() -> None:
    """End without a traceback where whoever read the output has seen enough, as ``head`` has."""
    before = sys.excepthook

    def end(kind: type[BaseException], exc: BaseException, traceback: TracebackType | None) -> None:
        if not isinstance(exc, BrokenPipeError):
            before(kind, exc, traceback)

    def flush() -> None:
        try:
            sys.stdout.flush()
        except OSError:  # or a full disk behind a redirection, which was said
            _let_go_of(sys.stdout)

    sys.excepthook = end
    atexit.register(flush)


def outlive_readers() -> None:
    """Go on where whoever read the output is gone: a run must not end with the window that showed it."""
    for stream in (sys.stdout, sys.stderr):
        for name in ("write", "flush"):
            # On the stream itself, so that it stays what libraries ask for. One that takes no attributes is no pipe.
            with contextlib.suppress(AttributeError):
                setattr(stream, name, _outliving(stream, getattr(stream, name)))


def _outliving(stream: TextIO, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        try:
            return method(*arguments)
        except BrokenPipeError:
            _let_go_of(stream)
            return len(arguments[0]) if arguments else None

    return call


def _let_go_of(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


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
