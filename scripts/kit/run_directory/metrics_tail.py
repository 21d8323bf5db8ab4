"""Follow a ``metrics.jsonl`` that is being written: each call reads what has come since the last one, once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kit.files.json_files import parse
from kit.files.regular_files import open_regular

_AT_ONCE_BYTES = 1 << 20
_MOST_STEPS = 1 << 53  # what is drawn and divided becomes a float


class MetricsTail:
    """The growing end of one metrics file."""

    def __init__(self, path: Path) -> None:
        """Begin at the file's beginning, whether it is there yet or not."""
        self.path = path
        self._offset = 0
        self._file_id: tuple[int, int] | None = None
        self._half = b""

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """Read the lines that have become whole since the last call.

        Returns:
            The lines, and whether the file was replaced: its run was started again.
        """
        lines: list[dict[str, Any]] = []
        try:
            with open_regular(self.path) as file:
                again = self._restart_if_replaced(file.fileno())
                file.seek(self._offset)
                while chunk := file.read(_AT_ONCE_BYTES):
                    self._offset += len(chunk)
                    *whole, self._half = (self._half + chunk).split(b"\n")
                    lines += [line for text in whole if (line := parse_line(text)) is not None]
        except OSError:
            return lines, False
        return lines, again

    def _restart_if_replaced(self, descriptor: int) -> bool:
        status = os.fstat(descriptor)
        file_id = (status.st_dev, status.st_ino)
        replaced = self._file_id not in (None, file_id) or status.st_size < self._offset
        self._file_id = file_id
        if replaced:
            self._offset, self._half = 0, b""
        return replaced


def parse_line(text: str | bytes) -> dict[str, Any] | None:
    """Parse one line of metrics; None where it is none."""
    try:
        line = parse(text)
    except ValueError:
        return None
    step = line.get("step") if isinstance(line, dict) else None
    return line if isinstance(step, int) and abs(step) < _MOST_STEPS else None
