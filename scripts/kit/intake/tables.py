"""Rows of tables: CSV in its common dialects, and Parquet in batches."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from kit.data.conversations import LONGEST_ROW_BYTES, RowProblem, too_long
from kit.data.row_values import shown
from kit.intake.unpack import GROWTH_COUNTS_FROM, MOST_GROWTH, FileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from pyarrow import Array, RecordBatch
    from pyarrow.parquet import FileMetaData

_DELIMITERS = ",;\t|"
# A column may repeat one text in all rows, stored once: some growth is normal, a gigabyte takes seconds.
_MOST_GROWTH, _GROWTH_COUNTS_FROM = 200, 1 << 30
ROWS_AT_ONCE = 16  # a value stored once for many rows is in memory once per row


def read_csv(file: BinaryIO, *, tabs: bool = False) -> Iterator[tuple[int, dict[str, Any]] | RowProblem]:
    """Yield each row of a CSV file with the line it begins at; the first line names the columns.

    The delimiter is the most frequent of ``, ; tab |`` in the header. An empty cell is a missing value.

    Raises:
        FileError: The header cannot be used, or a quote is not closed.
    """
    csv.field_size_limit(LONGEST_ROW_BYTES)
    # Bytes that are not UTF-8 become lone surrogates, a problem of the row and not of the file.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _read_csv(text, tabs=tabs)
    finally:
        text.detach()  # the caller closes the file


def _read_csv(text: io.TextIOWrapper, *, tabs: bool) -> Iterator[tuple[int, dict[str, Any]] | RowProblem]:
    head = text.readline(LONGEST_ROW_BYTES)
    while head and not head.strip("\ufeff \t\r\n"):
        head = text.readline(LONGEST_ROW_BYTES)
    if not head:
        return
    if "\0" in head:
        raise FileError(1, "contains NUL bytes, as UTF-16 does", "save it as CSV UTF-8")
    delimiter = "\t" if tabs else max(_DELIMITERS, key=head.count)
    lines = _Lines(head, text)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    names = _header(reader)
    while True:
        line = reader.line_num + 1
        lines.left = LONGEST_ROW_BYTES
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            if "end of data" in str(exc) or "larger than" in str(exc):
                row = "" if "end of data" in str(exc) else f"a row longer than {LONGEST_ROW_BYTES >> 20} MB, or "
                what = f"has {row}an unclosed quote, so row boundaries are unknown"
                raise FileError(line, what, "close the quote; double a quote inside a cell") from exc
            yield RowProblem(line, f"is not valid CSV ({exc})", "quote the cell; double a quote inside it")
            continue
        if cells:
            yield _row(names, cells, line)


class _Lines:
    """Lines for a csv reader, which by itself would read any number of lines for one row."""

    def __init__(self, head: str, rest: io.TextIOWrapper) -> None:
        self.left = LONGEST_ROW_BYTES  # characters the row may still have
        self._head, self._rest = head, rest

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line, self._head = self._head or self._rest.readline(LONGEST_ROW_BYTES), ""
        if not line:
            raise StopIteration
        self.left -= len(line)
        if self.left <= 0:
            raise csv.Error("row larger than allowed")
        return line


def _header(reader: Any) -> list[str]:
    try:
        names = [name.strip() for name in next(reader)]
    except csv.Error as exc:
        raise FileError(1, f"has a header that is not valid CSV ({exc})", "write the column names there") from exc
    twice = _twice(names)
    if "" in names and len(names) > 1 and names[-1] == "" and names.count("") == 1:
        return names  # the header ends with a delimiter
    if twice or "" in names:
        found = f"{twice[0]!r} twice" if twice and twice[0] else "a column without a name"
        raise FileError(1, f"has {found} in its header", "give each column its own name")
    return names


def _twice(names: list[str]) -> list[str]:
    return sorted(name for name, times in Counter(names).items() if times > 1)


def _row(names: list[str], cells: list[str], line: int) -> tuple[int, dict[str, Any]] | RowProblem:
    if len(cells) != len(names):
        what = f"has {len(cells)} cells, but the header has {len(names)}"
        return RowProblem(line, what, "quote cells that contain the delimiter, and fill up short rows")
    row = {name: cell or None for name, cell in zip(names, cells, strict=True) if name}
    for cell in cells:
        if "\0" in cell:
            return RowProblem(line, "contains NUL bytes, as UTF-16 does", "save it as CSV UTF-8")
        if not cell.isascii() and any("\udc80" <= character <= "\udcff" for character in cell):
            return RowProblem(line, "is not UTF-8", "save it as CSV UTF-8 (Excel: 'CSV UTF-8' in Save As)")
    return line, row


def read_parquet(path: str) -> Iterator[tuple[int, Any] | RowProblem]:
    """Yield each row of a Parquet file with its number, a batch in memory at a time.

    Raises:
        FileError: The file is not Parquet, names two columns alike, unpacks to far more than its size, or is broken.
        OSError: It cannot be read.
    """
    import pyarrow as pa
    from pyarrow import parquet

    number, unpacked, size = 1, 0, Path(path).stat().st_size
    most = max(_GROWTH_COUNTS_FROM, _MOST_GROWTH * size)
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as table:
            names = table.schema_arrow.names
            if twice := _twice(names):
                raise FileError(1, f"has two columns named {shown(twice[0])}", "give each column its own name")
            check_growth(table.metadata, size)
            for batch in table.iter_batches(batch_size=ROWS_AT_ONCE, use_threads=False):
                unpacked += sum(batch.slice(offset, 1).nbytes for offset in range(batch.num_rows))
                if unpacked > most:
                    raise _grows(number, _MOST_GROWTH)
                yield from rows_of(batch, number)
                number += batch.num_rows
    except pa.ArrowException as exc:
        raise FileError(number, f"is not a Parquet file, or broken ({_reason(exc)})", "write the file again") from exc
    except OSError as exc:
        if exc.errno is not None:  # for broken data pyarrow raises OSError without a number
            raise
        raise FileError(number, f"is broken from row {number} on ({_reason(exc)})", "write the file again") from exc


def check_growth(metadata: FileMetaData, size: int) -> None:
    """Compare a Parquet file's size in bytes with its columns' declared unpacked sizes, before they are decoded.

    Raises:
        FileError: A column has more bytes, or more values, than such a file could contain.
    """
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    for at in range(metadata.num_columns):
        parts = [group.column(at) for group in groups]
        most = max(sum(part.total_uncompressed_size for part in parts), sum(part.num_values for part in parts))
        if most > max(GROWTH_COUNTS_FROM, MOST_GROWTH * size):
            raise _grows(1, MOST_GROWTH)


def _grows(number: int, times: int) -> FileError:
    message = f"unpacks to more than {times} times its size"
    return FileError(number, message, "if this is intended, omit the column that repeats itself")


class OutOfRange:
    """A value that Python cannot hold, such as a time 292 billion years ahead: rejected only if it is used."""

    kind = "a value that cannot be read"

    def __repr__(self) -> str:
        """Return its kind."""
        return self.kind


def rows_of(batch: RecordBatch, number: int) -> Iterator[tuple[int, Any] | RowProblem]:
    """Yield each row of a batch with its number, counted from ``number``."""
    for offset in range(batch.num_rows):
        row = batch.slice(offset, 1)
        if row.nbytes > LONGEST_ROW_BYTES:
            yield too_long(number + offset)
            continue
        try:
            yield number + offset, {name: _value(row.column(at)) for at, name in enumerate(batch.schema.names)}
        except UnicodeDecodeError:
            yield RowProblem(number + offset, "contains text that is not UTF-8", "write the column again as strings")


def _value(column: Array) -> Any:
    try:
        return column.to_pylist()[0]
    except UnicodeDecodeError:
        raise
    except Exception:  # noqa: BLE001 - pyarrow, pandas and zoneinfo differ for a time beyond Python's range
        return OutOfRange()


def _reason(exc: Exception) -> str:
    return str(exc).splitlines()[0][:120] if str(exc) else type(exc).__name__
