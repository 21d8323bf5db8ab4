"""Rows of a JSON file, an array or consecutive values, read without holding the whole file."""

from __future__ import annotations

import codecs
import json
from typing import TYPE_CHECKING, Any

from kit.data.conversations import LONGEST_ROW_BYTES, RowProblem
from kit.data.row_values import RowError, keyed_once
from kit.intake.unpack import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_READ_BYTES = 1 << 20
_SPACE = " \t\r\n"


def read_values(file: BinaryIO) -> Iterator[tuple[int, Any] | RowProblem]:
    """Yield each row with the line it begins at; a row with a duplicate key is a problem.

    Raises:
        FileError: The rest is not JSON, so row boundaries are unknown.
    """
    window = _Window(file)
    if not window.skip_space():
        return
    in_array = window.take("[")
    first = True
    while True:
        if not window.skip_space():
            if in_array:
                raise FileError(window.line, "ends inside its list", "complete the file: it was cut off")
            return
        if in_array and window.take("]"):
            if window.skip_space():
                raise FileError(window.line, "continues after the end of its list", "put all rows into one list")
            return
        if not first and window.take(","):
            window.skip_space()
        elif not first and in_array:
            raise FileError(window.line, "has no comma between two rows", "separate its rows by commas")
        first = False
        line = window.line
        value = window.value()
        yield value if isinstance(value, RowProblem) else (line, value)


class _Window:
    """The part of a file in memory: grows until a value is complete, and drops what was read."""

    def __init__(self, file: BinaryIO) -> None:
        self.line = 1
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at = 0
        self._ended = False
        self._parse = json.JSONDecoder(object_pairs_hook=keyed_once).raw_decode
        self._parse_loosely = json.JSONDecoder().raw_decode

    def _grow(self, size: int = 0) -> bool:
        if self._ended:
            return False
        data = self._file.read(max(_READ_BYTES, size))
        self._ended = not data
        if b"\0" in data:
            raise FileError(self.line, "contains NUL bytes, as UTF-16 does", "save the file as UTF-8")
        try:
            more = self._decode.decode(data, final=self._ended)
        except UnicodeDecodeError as exc:
            line = self.line + self._text[self._at :].count("\n") + data[: exc.start].count(b"\n")
            raise FileError(line, "is not UTF-8", "save the file as UTF-8") from exc
        self._text = self._text[self._at :] + more
        self._at = 0
        return not self._ended

    def skip_space(self) -> bool:
        """Go to the next character that is not whitespace; tell whether there is one."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self.line += self._text[self._at] == "\n"
                self._at += 1
            if self._at < len(self._text):
                return True
            if not self._grow() and self._at >= len(self._text):
                return False

    def take(self, character: str) -> bool:
        """Step over a character if it is the next one; tell whether it was."""
        if self._text[self._at : self._at + 1] != character:
            return False
        self._at += 1
        return True

    def _parsed(self) -> tuple[Any, int]:
        """Return the next value and where it ends."""
        try:
            return self._parse(self._text, self._at)
        except RowError as exc:
            _, end = self._parse_loosely(self._text, self._at)
            return RowProblem(self.line, str(exc), exc.fix), end

    def value(self) -> Any:
        """Parse one value."""
        while True:
            try:
                value, end = self._parsed()
            except RecursionError as exc:
                raise FileError(self.line, "is nested too deeply", "write flat rows") from exc
            except json.JSONDecodeError as exc:
                if self._ended:
                    line = self.line + self._text.count("\n", self._at, exc.pos)
                    raise FileError(line, f"is not valid JSON ({exc.msg})", "fix it there, or write JSONL") from exc
            except ValueError as exc:
                raise FileError(self.line, "contains a number that is too long", "write it as text") from exc
            else:
                if end < len(self._text) or self._ended:
                    self.line += self._text.count("\n", self._at, end)
                    self._at = end
                    return value
            size = len(self._text) - self._at
            if size > LONGEST_ROW_BYTES:
                limit = f"{LONGEST_ROW_BYTES >> 20} MB"
                what = f"contains a row longer than {limit}, or is broken there"
                raise FileError(self.line, what, f"write rows under {limit}, or JSONL")
            self._grow(size)
