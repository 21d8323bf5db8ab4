"""A run's talk, kept in its folder: what it says on stderr, line by line, without colours, bars and secrets."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from kit.cli.redaction import redact, redact_argv
from kit.cli.screen import visible
from kit.run_directory.names import LOG

_MOST_BEFORE = 1_000  # lines that are remembered until the run directory is known
_STYLES = re.compile("\x1b\\[[0-9;?]*[A-Za-z]")


class RunLog:
    """Hears what this process says on stderr; from ``begin`` on it is written, what was said before as well."""

    def __init__(self) -> None:
        """Hear nothing yet."""
        self._before: list[str] = []
        self._rest = ""
        self._file: Any = None
        # A signal's handler speaks too, in the middle of what is being written.
        self._lock = threading.RLock()
        self._stream, self._write = sys.stderr, sys.stderr.write

    def __enter__(self) -> Self:
        """Begin to hear."""
        with contextlib.suppress(AttributeError):  # a stream that somebody put there, which takes no attributes
            self._stream.write = self._heard  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        """Hear no more."""
        with contextlib.suppress(AttributeError):
            self._stream.write = self._write  # type: ignore[method-assign]
        if self._file is not None:
            self._file.close()

    def begin(self, folder: Path, argv: Sequence[str]) -> None:
        """Write into the run directory from here on, behind what an earlier session said there.

        Nothing fails for want of it: metrics and receipt are the record.
        """
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with contextlib.suppress(OSError), self._lock:
            number = os.open(folder / LOG, flags, 0o644)
            self._file = open(number, "a", encoding="utf-8", errors="backslashreplace")  # noqa: PTH123, SIM115 - open
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self._keep(f"{now}  kit train {' '.join(redact_argv(argv))}")
            for line in self._before:
                self._keep(line)
            self._before.clear()

    def _heard(self, text: str) -> int:
        with self._lock:
            *lines, rest = (self._rest + text).split("\n")
            for line in lines:
                # What is redrawn returns to the beginning of its line: the last state counts.
                if shown := _STYLES.sub("", line).rstrip("\r ").rpartition("\r")[2]:
                    self._keep(visible(redact(shown)))
            self._rest = "\r" + rest.rpartition("\r")[2] if "\r" in rest else rest
        return self._write(text)

    def _keep(self, line: str) -> None:
        if self._file is None:
            self._before = [*self._before, line][-_MOST_BEFORE:]
            return
        with contextlib.suppress(OSError, ValueError):
            self._file.write(f"{line}\n")
            self._file.flush()
