"""Tokenised rows in a few bytes per token: a million rows as Python lists would fill a machine's memory."""

from __future__ import annotations

import errno
import os
import tempfile
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from kit.data.encoding import IGNORE_INDEX, EncodedRow, trained_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

_IN_MEMORY_BYTES = 64 << 20
_ID = np.dtype(np.int32)


@dataclass
class TokenBlock:
    """Some rows' tokens, packed: what a worker process sends back."""

    ids: array[int] = field(default_factory=lambda: array("i"))  # of all rows, truncated and concatenated
    lengths: array[int] = field(default_factory=lambda: array("i"))  # after truncation
    full_lengths: array[int] = field(default_factory=lambda: array("i"))  # before truncation
    lines: array[int] = field(default_factory=lambda: array("q"))
    trained: array[int] = field(default_factory=lambda: array("i"))  # tokens with loss in each row
    span_counts: array[int] = field(default_factory=lambda: array("i"))  # answers in each row
    spans: array[int] = field(default_factory=lambda: array("i"))  # (first, past the last) token of each answer, flat

    def add(self, ids: list[int], spans: list[tuple[int, int]], line: int, max_seq_length: int) -> bool:
        """Add one row of untruncated ids if it has tokens with loss; tell whether it does."""
        trained = trained_tokens(spans, max_seq_length)
        if not trained:
            return False
        self.full_lengths.append(len(ids))
        self.ids.extend(ids[:max_seq_length])
        self.lengths.append(min(len(ids), max_seq_length))
        self.lines.append(line)
        self.trained.append(trained)
        self.span_counts.append(len(spans))
        for begin, end in spans:
            self.spans.extend((begin, end))
        return True


class RowPacker:
    """Collects blocks of rows; beyond 64 MB the ids go to a temporary file."""

    def __init__(self) -> None:
        """Start empty."""
        self._block = TokenBlock()
        self._file: BinaryIO | None = None

    def extend(self, block: TokenBlock) -> None:
        """Add a block's rows."""
        own = self._block
        for column in fields(TokenBlock):
            getattr(own, column.name).extend(getattr(block, column.name))
        if len(own.ids) * own.ids.itemsize > _IN_MEMORY_BYTES:
            self._spill()

    def rows(self) -> TokenRows:
        """Return all rows; nothing can be added afterwards."""
        own, self._block = self._block, TokenBlock()
        ids: Any = np.asarray(own.ids)
        if self._file is not None:
            self._block.ids = own.ids
            self._spill()
            self._file.flush()
            ids = _OnDisk(self._file)
        lengths = np.asarray(own.lengths)
        return TokenRows(
            ids,
            _starts(lengths),
            lengths,
            np.asarray(own.trained),
            np.asarray(own.full_lengths),
            np.asarray(own.lines),
            np.asarray(own.spans).reshape(-1, 2),
            _starts(np.asarray(own.span_counts)),
        )

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - read as long as the rows live
        self._block.ids.tofile(self._file)
        self._block.ids = array("i")


class _OnDisk:
    """Ids in a file, read on access; a memory map would count as this process's memory."""

    nbytes = 0

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __getitem__(self, piece: slice) -> Any:
        size = (piece.stop - piece.start) * _ID.itemsize
        raw = os.pread(self._file.fileno(), size, piece.start * _ID.itemsize)
        if len(raw) != size:
            raise OSError(errno.EIO, "the temporary file of token ids was truncated")
        return np.frombuffer(raw, _ID)


def _starts(counts: Any) -> Any:
    """Return where each run begins, and at the end where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


@dataclass(frozen=True, eq=False)
class TokenRows(Sequence[EncodedRow]):
    """Rows as a sequence of ``EncodedRow``, each made on access; their sizes as arrays."""

    ids: Any  # of all rows, concatenated, int32: an array, or a file that slices like one
    starts: Any  # of each row in ids; shape (rows + 1,)
    lengths: Any  # tokens of each row, after truncation
    trained: Any  # tokens with loss in each row
    full_lengths: Any  # before truncation
    lines: Any
    spans: Any  # (first, past the last) token of each answer; shape (answers, 2)
    span_starts: Any  # of each row in spans; shape (rows + 1,)

    @classmethod
    def of(cls, rows: Iterable[EncodedRow]) -> TokenRows:
        """Pack rows whose labels are their ids wherever they carry loss.

        Raises:
            ValueError: A row has no tokens with loss.
        """
        packer, block = RowPacker(), TokenBlock()
        for row in rows:
            is_answer = np.asarray([IGNORE_INDEX, *row.labels, IGNORE_INDEX]) != IGNORE_INDEX
            edges = np.flatnonzero(np.diff(is_answer)).tolist()
            if not block.add(row.input_ids, list(zip(edges[::2], edges[1::2], strict=True)), row.line, row.full_length):
                raise ValueError(f"the row at line {row.line} has no tokens with loss")
            block.full_lengths[-1] = row.full_length
        packer.extend(block)
        return packer.rows()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> EncodedRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[EncodedRow]: ...
    def __getitem__(self, index: int | slice) -> EncodedRow | list[EncodedRow]:
        """Return one row, or the rows of a slice."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        ids, labels = self.tokens_of(index)
        return EncodedRow(ids.tolist(), labels.tolist(), int(self.lines[index]), int(self.full_lengths[index]))

    def tokens_of(self, index: int) -> tuple[Any, Any]:
        """Return one row's ids and labels, each int32 of shape (tokens,)."""
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        begin = self.starts[index]
        ids = self.ids[begin : begin + self.lengths[index]]
        labels = np.full_like(ids, IGNORE_INDEX)
        for first, behind in self.spans[self.span_starts[index] : self.span_starts[index + 1]]:
            labels[first:behind] = ids[first:behind]
        return ids, labels

    def cut(self, length: int) -> TokenRows:
        """Return the same rows truncated to ``length`` tokens; some may then have no tokens with loss."""
        lengths = np.minimum(self.lengths, length)
        counts = np.diff(self.span_starts)
        first, behind = self.spans[:, 0], np.minimum(self.spans[:, 1], np.repeat(lengths, counts))
        # Two answers may share a token, and a row's first token is never predicted.
        before = np.zeros_like(first)
        before[1:] = self.spans[:-1, 1]
        before[self.span_starts[:-1][counts > 0]] = 1
        trained = _starts(np.maximum(behind - np.maximum(first, np.maximum(before, 1)), 0))[self.span_starts]
        return replace(self, lengths=lengths, trained=np.diff(trained))

    @property
    def size_bytes(self) -> int:
        """Their memory; ids in a file take none."""
        arrays = [self.starts, self.lengths, self.trained, self.full_lengths, self.lines, self.spans, self.span_starts]
        return int(self.ids.nbytes + sum(each.nbytes for each in arrays))

    @property
    def tokens(self) -> int:
        """Tokens in all rows, after truncation."""
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def trainable_tokens(self) -> int:
        """Tokens with loss."""
        return int(self.trained.sum(dtype=np.int64))


NO_ROWS = RowPacker().rows()
