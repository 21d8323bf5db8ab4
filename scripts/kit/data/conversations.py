"""Rows of a JSONL file as conversations: every row becomes a conversation, or a problem with its line."""

from __future__ import annotations

import errno
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.cli.findings import Finding, error
from kit.data.row_values import RowError, keyed_once, kind_of
from kit.data.shapes import KNOWN, shape_row
from kit.data.turns import Message
from kit.files.regular_files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["Conversation", "LineNumbers", "Message", "RowProblem", "read_conversations"]

LONGEST_ROW_BYTES = 32 << 20  # a row is held in memory several times over
_LONGEST_LINE_BYTES = 1 << 30  # skipped to find the next line
_LINES_SHOWN = 8
_KINDS_SHOWN = 12
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Conversation:
    """One row of the data."""

    messages: tuple[Message, ...]
    line: int  # from 1
    unused: tuple[str, ...] = field(default=(), compare=False)  # ignored keys


@dataclass(frozen=True)
class RowProblem:
    """Why one row cannot be trained on."""

    line: int
    message: str
    fix: str


def read_conversations(path: Path) -> Iterator[Conversation | RowProblem]:
    """Stream a JSONL file row by row, in bounded memory; blank lines are skipped.

    Raises:
        OSError: The file cannot be opened or read.
    """
    with open_regular(path) as file:
        yield from map(read_row, read_lines(file))


def read_row(item: tuple[int, bytes] | RowProblem) -> Conversation | RowProblem:
    """Read one line of JSONL."""
    if isinstance(item, RowProblem):
        return item
    line, raw = item
    try:
        shaped = shape_row(parse_row(raw))
    except RowError as exc:
        return RowProblem(line, str(exc), exc.fix)
    return Conversation(shaped.messages, line, shaped.unused)


def read_lines(file: BinaryIO) -> Iterator[tuple[int, bytes] | RowProblem]:
    """Number a file's lines from 1 and skip blank ones; a line too long for memory is a problem, not a crash.

    Raises:
        OSError: The file cannot be read, or a line is longer than 1 GB.
    """
    number = 0
    while raw := file.readline(LONGEST_ROW_BYTES + 1):
        number += 1
        if number == 1:
            raw = raw.removeprefix(BYTE_ORDER_MARK)
        if len(raw) > LONGEST_ROW_BYTES and not raw.endswith(b"\n"):
            length = len(raw)
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(LONGEST_ROW_BYTES)
                length += len(raw)
                if length > _LONGEST_LINE_BYTES:  # a sparse file of zeros can be larger than the disk
                    raise OSError(errno.EOVERFLOW, f"line {number} is longer than {_LONGEST_LINE_BYTES >> 30} GB")
            yield too_long(number)
        elif raw.strip():
            yield number, raw


def too_long(line: int) -> RowProblem:
    """Return the problem of a row longer than ``LONGEST_ROW_BYTES``."""
    limit = f"{LONGEST_ROW_BYTES >> 20} MB"
    return RowProblem(line, f"is longer than {limit}", f"write one row per line, each under {limit}")


def parse_row(raw: bytes) -> dict[str, Any]:
    """Parse one line of JSONL.

    Raises:
        RowError: It is not a JSON object.
    """
    if b"\0" in raw:
        raise RowError("contains NUL bytes, as UTF-16 does", "save the file as UTF-8")
    try:
        row = json.loads(raw.decode("utf-8"), object_pairs_hook=keyed_once)
    except UnicodeDecodeError as exc:
        raise RowError("is not UTF-8", "save the file as UTF-8") from exc
    except RowError:
        raise
    except (ValueError, RecursionError) as exc:  # ValueError: a number of thousands of digits
        reason = exc.msg if isinstance(exc, json.JSONDecodeError) else "nested too deeply, or a number too long"
        raise RowError(f"is not valid JSON ({reason})", "write one complete JSON object per line") from exc
    return checked_object(row)


def checked_object(row: Any) -> dict[str, Any]:
    """Return a row that is a JSON object.

    Raises:
        RowError: It is something else.
    """
    if not isinstance(row, dict):
        raise RowError(f"is {kind_of(row)}, not a JSON object", f"write one object per line with {KNOWN}")
    return row


@dataclass
class LineNumbers:
    """Where something was found: how often, and the first lines."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        """Count one more."""
        self.count += 1
        if len(self.first) < _LINES_SHOWN:
            self.first.append(line)

    def extend(self, lines: Iterable[int]) -> None:
        """Count each line."""
        for line in lines:
            self.add(line)

    def __bool__(self) -> bool:
        """Tell whether any was counted."""
        return self.count > 0

    def __str__(self) -> str:
        """Name the rows: ``the row at line 3``, or ``each of 12 rows (lines 3, 9, 10, …)``."""
        if self.count == 1:
            return f"the row at line {self.first[0]}"
        lines = ", ".join(map(str, self.first))
        return f"each of {self.count:,} rows (lines {lines}{', …' if self.count > len(self.first) else ''})"


class Problems:
    """Row problems of one file by kind, in bounded memory.

    Beyond the first kinds all are counted together: a file in another format can have a new kind in every row.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._places: dict[tuple[str, str], LineNumbers] = defaultdict(LineNumbers)

    def add(self, problem: RowProblem) -> None:
        """Count one."""
        kind = (problem.message, problem.fix)
        if kind not in self._places and len(self._places) >= _KINDS_SHOWN:
            kind = ("cannot be trained on for other reasons", "fix the rows above, then run this again")
        self._places[kind].add(problem.line)

    def findings(self, path: Path | str) -> list[Finding]:
        """Return one finding per kind, at its first line."""
        return [
            error("data.row", f"{places} {message}", fix, f"{path}:{places.first[0]}")
            for (message, fix), places in self._places.items()
        ]
