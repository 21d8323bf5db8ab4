"""Colour and streams: results on stdout, talk on stderr, colour only where a person is looking.

Standard library only, because the set-up command prints with it before anything is installed. No secret is shown: see
``kit.redaction``.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

from kit.redaction import redact

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
