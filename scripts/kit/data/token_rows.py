"""Tokenised rows in a few bytes a token: as Python's own lists a million rows would fill a machine's memory."""

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

    ids: array[int] = field(default_factory=lambda: array("i"))  # of all rows, one row behind the other, after the cut
    lengths: array[int] = field(default_factory=lambda: array("i"))  # after the cut
    full_lengths: array[int] = field(default_factory=lambda: array("i"))  # before the cut
    lines: array[int] = field(default_factory=lambda: array("q"))
    trained: array[int] = field(default_factory=lambda: array("i"))  # tokens the loss is taken on
    span_counts: array[int] = field(default_factory=lambda: array("i"))  # answers of each row
    spans: array[int] = field(default_factory=lambda: array("i"))  # (first, behind the last) token of each answer, flat

    def add(self, ids: list[int], spans: list[tuple[int, int]], line: int, max_seq_length: int) -> bool:
        """Add one row of uncut ids, and tell whether it carries loss; one that does not is left out."""
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
    """Takes blocks of rows in; the ids go to a temporary file once they are many."""

    def __init__(self) -> None:
        """Begin with none."""
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
        """Return all of them; nothing can be added afterwards."""
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
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - the rows are looked at for as long as they live
        self._block.ids.tofile(self._file)
        self._block.ids = array("i")


class _OnDisk:
    """Ids in a file, read when they are asked for; pages of a map would count as memory of this process."""

    nbytes = 0

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __getitem__(self, piece: slice) -> Any:
        size = (piece.stop - piece.start) * _ID.itemsize
        raw = os.pread(self._file.fileno(), size, piece.start * _ID.itemsize)
        if len(raw) != size:
            raise OSError(errno.EIO, "the temporary file of the rows' tokens has become shorter")
        return np.frombuffer(raw, _ID)


def _starts(counts: Any) -> Any:
    """Return where each of some runs begins, and behind the last where it ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


@dataclass(frozen=True, eq=False)
class TokenRows(Sequence[EncodedRow]):
    """Rows as a sequence of ``EncodedRow``, each made when it is asked for; their sizes as arrays, for all at once."""

    ids: Any  # of all rows, one row behind the other, int32; an array, or a file that is sliced like one
    starts: Any  # of each row in ids
    lengths: Any  # tokens of each row, after the cut
    trained: Any  # those of each that the loss is taken on
    full_lengths: Any  # before the cut
    lines: Any
    spans: Any  # (first, behind the last) token of each answer
    span_starts: Any  # of each row in spans

    @classmethod
    def of(cls, rows: Iterable[EncodedRow]) -> TokenRows:
        """Pack rows whose labels are their ids wherever the loss is taken.

        Raises:
            ValueError: One carries no loss.
        """
        packer, block = RowPacker(), TokenBlock()
        for row in rows:
            is_answer = np.asarray([IGNORE_INDEX, *row.labels, IGNORE_INDEX]) != IGNORE_INDEX
            edges = np.flatnonzero(np.diff(is_answer)).tolist()
            if not block.add(row.input_ids, list(zip(edges[::2], edges[1::2], strict=True)), row.line, row.full_length):
                raise ValueError(f"the row at line {row.line} carries no loss")
            block.full_lengths[-1] = row.full_length
        packer.extend(block)
        return packer.rows()

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> EncodedRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[EncodedRow]: ...
    def __getitem__(self, index: int | slice) -> EncodedRow | list[EncodedRow]:
        """Make one row, or the rows of a slice."""
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
        """Return the same rows, each cut at ``length`` tokens; one may carry no loss then."""
        lengths = np.minimum(self.lengths, length)
        counts = np.diff(self.span_starts)
        first, behind = self.spans[:, 0], np.minimum(self.spans[:, 1], np.repeat(lengths, counts))
        # Two answers may touch the same token, and nothing predicts a row's first.
        before = np.zeros_like(first)
        before[1:] = self.spans[:-1, 1]
        before[self.span_starts[:-1][counts > 0]] = 1
        trained = _starts(np.maximum(behind - np.maximum(first, np.maximum(before, 1)), 0))[self.span_starts]
        return replace(self, lengths=lengths, trained=np.diff(trained))

    @property
    def size_bytes(self) -> int:
        """Memory they take; ids that went to a file take none."""
        arrays = [self.starts, self.lengths, self.trained, self.full_lengths, self.lines, self.spans, self.span_starts]
        return int(self.ids.nbytes + sum(each.nbytes for each in arrays))

    @property
    def tokens(self) -> int:
        """Tokens in all rows, after the cut."""
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def trainable_tokens(self) -> int:
        """Tokens the loss is taken on."""
        return int(self.trained.sum(dtype=np.int64))


NO_ROWS = RowPacker().rows()
