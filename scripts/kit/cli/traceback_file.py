"""A failure's traceback: kept in a file that is named, and shown only where --debug or KIT_DEBUG=1 asks for it.

Standard library only, and for Python 3.9 on.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import traceback
from datetime import datetime, timezone
from pathlib import Path

from kit.cli.redaction import redact, redact_argv
from kit.cli.screen import visible

NAME = "error.txt"
DEBUG = "KIT_DEBUG"


def keep_traceback(exc: BaseException, folder: Path | None = None) -> str:
    """Write a traceback to ``error.txt`` in the folder, or to a temporary file; return a sentence on its place."""
    text = _text(exc)
    if os.environ.get(DEBUG, "0") not in {"", "0"}:
        with contextlib.suppress(OSError, ValueError):
            print(text, file=sys.stderr, end="")
    for write in (_write_into, _write_anywhere):
        with contextlib.suppress(OSError):
            return f"the traceback is in {write(folder, text)}"
    return "the same command with --debug (KIT_DEBUG=1) shows the traceback"


def _text(exc: BaseException) -> str:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    lines = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
    # A file that somebody may `cat`: nothing in it commands a terminal.
    return visible(redact(f"{now}  {' '.join(redact_argv(sys.argv))}\n\n{lines}"))


def _write_into(folder: Path | None, text: str) -> Path:
    if folder is None:
        raise FileNotFoundError
    path = folder / NAME
    path.unlink(missing_ok=True)
    try:
        with path.open("x", encoding="utf-8", errors="backslashreplace") as file:  # never through a link
            file.write(text)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # half a traceback
        raise
    return path


def _write_anywhere(_folder: Path | None, text: str) -> Path:
    number, name = tempfile.mkstemp(prefix="kit-", suffix=f"-{NAME}")
    with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:  # noqa: PTH123 - it is open already
        file.write(text)
    return Path(name)
