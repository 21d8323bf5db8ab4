"""A source's rows in chunks for the worker processes; rows too large or too deep to send become problems."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from kit.data.conversations import LONGEST_ROW_BYTES, RowProblem, too_long
from kit.data.row_values import RowError
from kit.files.json_files import DEEPEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kit.intake.formats import Raw

_ROWS_AT_ONCE, _BYTES_AT_ONCE = 256, 4 << 20
_BYTES_BESIDE = 8  # of a value that is not text, and of the separator between two

Chunk = tuple[int, list["Raw"]]


def in_chunks(source: int, rows: Iterable[Raw]) -> Iterator[Chunk]:
    """Cut a source's rows into chunks.

    The cuts of raw bytes depend on their content: a line inserted into a file changes only its own chunk, so the cached
    lengths of all others stay valid.
    """
    chunk: list[Raw] = []
    size = 0
    for each in rows:
        item, bytes_of_row = _sized(each)
        chunk.append(item)
        size += bytes_of_row
        raw = None if isinstance(item, RowProblem) else item[1]
        is_cut = isinstance(raw, bytes) and zlib.crc32(raw) % _ROWS_AT_ONCE == 0
        if is_cut or len(chunk) >= 2 * _ROWS_AT_ONCE or size >= _BYTES_AT_ONCE:
            yield source, chunk
            chunk, size = [], 0
    if chunk:
        yield source, chunk


def _sized(item: Raw) -> tuple[Raw, int]:
    """Return a row and its size; a problem in place of one that cannot be sent to a process."""
    if isinstance(item, RowProblem):
        return item, _BYTES_BESIDE
    try:
        size = _size_of(item[1])
    except RowError as exc:
        return RowProblem(item[0], str(exc), exc.fix), _BYTES_BESIDE
    # Many columns, each short enough.
    return (too_long(item[0]), _BYTES_BESIDE) if size > 2 * LONGEST_ROW_BYTES else (item, size)


def _size_of(value: Any) -> int:
    """Return about how many bytes a row takes as text, parsed or not.

    Raises:
        RowError: It is nested too deeply to be sent to another process.
    """
    size, level = 0, [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for item in level:
            if isinstance(item, str | bytes):
                size += len(item)
            elif isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list | tuple):
                below += item
            size += _BYTES_BESIDE
        if not below:
            return size
        level = below
    raise RowError(f"is nested deeper than {DEEPEST} levels", "write flat rows")
