"""Colour and streams: results on stdout, talk on stderr, colour only where a person is looking.

Standard library only, because the set-up command prints with it before anything is installed. No secret is shown: see
``kit.cli.redaction``.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from kit.cli.redaction import discard_output, redact
from kit.cli.screen import one_line, visible

if TYPE_CHECKING:
    from collections.abc import Callable

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34"}
# Failures to write that may be over at the next line: a full disk, a quota, a limit on a file's size.
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PATIENCE_S = 10.0  # for a terminal that takes nothing: a moment's hold loses no line


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
    """Print one line (``lines``: several) on stderr, so that stdout stays free for results."""
    rest = text.lstrip("\n")
    blank = text[: len(text) - len(rest)]
    shown = blank + (visible if lines else one_line)(redact(rest))
    print(paint(shown, *styles, stream=sys.stderr) if styles else shown, file=sys.stderr, flush=True)


def fail(message: str, fix: str = "") -> int:
    """Print one error sentence and its fix on stderr; return 2, the exit code of a command used wrongly."""
    mark = paint("error:", "red", "bold", stream=sys.stderr)
    print(f"{mark} {one_line(redact(message))}", file=sys.stderr, flush=True)
    if fix:
        say(f"  fix: {fix}")
    return 2


def show_answer(text: str) -> None:
    """Write a piece of a model's answer to stdout: for a person on a terminal, as it is for a file or a program."""
    print(visible(text) if sys.stdout.isatty() else text, end="", flush=True)


def silence_shutdown() -> None:
    """End quietly where nobody reads the results any more; unread talk ends nothing."""

    def flush() -> None:
        try:
            sys.stdout.flush()
        except OSError:  # a reader that has seen enough, as ``head`` has; or a full disk, which was said
            discard_output(sys.stdout)

    atexit.register(flush)
    _ignore_broken_pipe_of(sys.stderr)


def ignore_broken_pipe() -> None:
    """Continue where nobody reads the results, or their disk is full: no run ends with its window.

    Nor waits for it: a terminal behind a lost connection may block for a quarter of an hour before it fails. Metrics
    and receipt hold what is not shown.
    """
    _ignore_broken_pipe_of(sys.stdout)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # no terminal, or one that has no name here
            # Opened anew: whoever else writes to it, the shell that comes back, goes on to wait.
            own = os.open(os.ttyname(stream.fileno()), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
            os.dup2(own, stream.fileno())
            os.close(own)


def _ignore_broken_pipe_of(stream: TextIO) -> None:
    write, flush = stream.write, stream.flush
    patience = _PATIENCE_S

    def patiently(method: Callable[..., Any], *arguments: str) -> None:
        nonlocal patience
        deadline = time.monotonic() + patience
        while True:
            try:
                method(*arguments)
                patience = _PATIENCE_S
            except BlockingIOError:
                patience = max(0.0, deadline - time.monotonic())
                if select.select([], [stream], [], patience)[1]:
                    method, arguments = flush, ()  # what did not fit stands in the stream's buffer
                    continue
                patience = 0.0
            except OSError as exc:
                if exc.errno not in _PASSING:
                    discard_output(stream)
            return

    def write_ignoring_broken_pipe(text: str) -> int:
        patiently(write, text)
        return len(text)

    # On the stream itself, so that it stays what libraries ask for. One that takes no attributes is no pipe.
    with contextlib.suppress(AttributeError):
        stream.write, stream.flush = write_ignoring_broken_pipe, lambda: patiently(flush)  # type: ignore[method-assign]


def gigabytes(size_bytes: float) -> str:
    """Show a size in decimal gigabytes: ``85.5 GB``, ``70 GB``, ``0.58 GB``."""
    size = size_bytes / 1e9
    return f"{size:,.2f} GB" if 0 < size < 1 else f"{size:,.1f}".removesuffix(".0") + " GB"


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
