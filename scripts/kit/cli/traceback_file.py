"""A failure's traceback: kept in a file that is named, and shown only where --debug or KIT_DEBUG=1 asks for it.

Standard library only, and for Python 3.9 on.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import tempfile
import traceback
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.mistakes import FindingsError, WrongUseError
from kit.cli.redaction import redact, redact_argv
from kit.cli.refusals import is_failure
from kit.cli.screen import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "error.txt"
DEBUG = "KIT_DEBUG"
# The folder of the run that is being begun, until its one error.txt is written: the first failure is the cause.
_FOLDERS: contextvars.ContextVar[list[Path] | None] = contextvars.ContextVar("folders", default=None)
_KEPT = "kit_traceback"  # of an exception: where its traceback is


@contextlib.contextmanager
def tracebacks_in(folder: Path | None) -> Iterator[None]:
    """Keep the traceback of what fails first in here in a run directory, which is made for it."""
    before = _FOLDERS.set([folder] if folder else [])
    try:
        yield
    except BaseException as exc:
        if is_failure(exc) and not isinstance(exc, (FindingsError, WrongUseError)):
            keep_traceback(exc)
        raise
    finally:
        _FOLDERS.reset(before)


def keep_traceback(exc: BaseException, folder: Path | None = None) -> str:
    """Write a traceback to ``error.txt``, once; return a sentence on its place.

    Without ``folder`` see ``tracebacks_in``; a temporary file where there is neither, and where that fails.
    """
    kept = getattr(exc, _KEPT, None)
    if isinstance(kept, str):
        return kept
    show_traceback(exc)
    where = "the same command with --debug (KIT_DEBUG=1) shows the traceback"
    text, folder = _text(exc), folder or _folder_of_the_run()
    for write in (_write_into, _write_anywhere):
        with contextlib.suppress(OSError):
            where = f"the traceback is in {write(folder, text)}"
            break
    with contextlib.suppress(AttributeError):  # of a type that takes none
        setattr(exc, _KEPT, where)
    return where


def _folder_of_the_run() -> Path | None:
    folders = _FOLDERS.get()
    if not folders:
        return None
    folder = folders.pop()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def show_traceback(exc: BaseException) -> None:
    """Show an exception's traceback where that was asked for."""
    if os.environ.get(DEBUG, "0") not in {"", "0"}:
        with contextlib.suppress(OSError, ValueError):
            print(_text(exc), file=sys.stderr, end="")


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
