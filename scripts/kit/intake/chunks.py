"""Where a source's rows are cut into pieces of work for the processes, and which rows no process could be sent."""

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
_BYTES_BESIDE = 8  # of a value that is no text, and of what keeps one apart from the next

Chunk = tuple[int, list["Raw"]]


def in_chunks(source: int, rows: Iterable[Raw]) -> Iterator[Chunk]:
    """Cut a source's rows into pieces of work.

    The cuts follow the content where it is bytes: a line put into a file moves only the piece it falls into, so the
    lengths of all others are still known.
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
    """Return a row and its size; in the place of one that no process could be sent, a problem."""
    if isinstance(item, RowProblem):
        return item, _BYTES_BESIDE
    try:
        size = _size_of(item[1])
    except RowError as exc:
        return RowProblem(item[0], str(exc), exc.fix), _BYTES_BESIDE
    # Of many columns, each of them short enough.
    return (too_long(item[0]), _BYTES_BESIDE) if size > 2 * LONGEST_ROW_BYTES else (item, size)


def _size_of(value: Any) -> int:
    """Return about how many bytes a row is as text, whether it is still to be parsed or not.

    Raises:
        RowError: It is nested deeper than it could be sent to another process.
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
