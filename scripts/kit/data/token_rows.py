"""Tokenised rows in a few bytes a token: as Python's own lists a million rows would fill a machine's memory."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from kit.data.encoding import EncodedRow, labelled, trained_tokens

if TYPE_CHECKING:
    from typing import BinaryIO

_IN_MEMORY_BYTES = 64 << 20


@dataclass
class TokenBlock:
    """Some rows' tokens, packed: what a worker process sends back.

    Attributes:
        ids: Token ids of all rows, cut at the length, one row behind the other.
        lengths: Tokens of each row, after the cut.
        full_lengths: Before the cut.
        lines: Each row's line in its file.
        trained: Tokens the loss is taken on, of each row.
        span_counts: Answers of each row.
        spans: (first, behind the last) token of each answer, flat.
    """

    ids: array[int] = field(default_factory=lambda: array("i"))
    lengths: array[int] = field(default_factory=lambda: array("i"))
    full_lengths: array[int] = field(default_factory=lambda: array("i"))
    lines: array[int] = field(default_factory=lambda: array("q"))
    trained: array[int] = field(default_factory=lambda: array("i"))
    span_counts: array[int] = field(default_factory=lambda: array("i"))
    spans: array[int] = field(default_factory=lambda: array("i"))

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


class TokenRows(Sequence[EncodedRow]):
    """Rows as a sequence of ``EncodedRow``, each made when it is asked for."""

    def __init__(self) -> None:
        """Begin with none."""
        self._small = TokenBlock()
        self._file: BinaryIO | None = None
        self._on_disk = 0
        self._ids: Any = None
        self._starts: Any = None
        self._span_starts: Any = None

    def extend(self, block: TokenBlock) -> None:
        """Add a block's rows; the ids go to a temporary file once they are many."""
        own = self._small
        own.ids.extend(block.ids)
        for name in ("lengths", "full_lengths", "lines", "trained", "span_counts", "spans"):
            getattr(own, name).extend(getattr(block, name))
        self._ids = self._starts = self._span_starts = None
        if len(own.ids) * own.ids.itemsize > _IN_MEMORY_BYTES:
            if self._file is None:
                # Closed with this object: the rows are looked at for as long as it lives.
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
            own.ids.tofile(self._file)
            self._on_disk += len(own.ids)
            own.ids = array("i")

    def _index(self) -> None:
        own = self._small
        self._starts = np.concatenate([[0], np.cumsum(np.frombuffer(own.lengths, np.int32), dtype=np.int64)])
        self._span_starts = np.concatenate([[0], np.cumsum(np.frombuffer(own.span_counts, np.int32), dtype=np.int64)])
        if self._file is None:
            self._ids = np.frombuffer(bytes(own.ids), np.int32)
            return
        own.ids.tofile(self._file)
        self._on_disk += len(own.ids)
        own.ids = array("i")
        self._file.flush()
        self._ids = np.memmap(self._file, np.int32, "r", shape=(self._on_disk,))

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._small.lengths)

    @overload
    def __getitem__(self, index: int) -> EncodedRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[EncodedRow]: ...
    def __getitem__(self, index: int | slice) -> EncodedRow | list[EncodedRow]:
        """Make one row, or the rows of a slice."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        if self._ids is None:
            self._index()
        own = self._small
        ids = self._ids[self._starts[index] : self._starts[index + 1]].tolist()
        flat = own.spans[2 * int(self._span_starts[index]) : 2 * int(self._span_starts[index + 1])]
        return labelled(ids, list(zip(flat[::2], flat[1::2], strict=True)), own.lines[index], own.full_lengths[index])

    @property
    def tokens(self) -> int:
        """Tokens in all rows, after the cut."""
        return sum(self._small.lengths)

    @property
    def trainable_tokens(self) -> int:
        """Tokens the loss is taken on."""
        return sum(self._small.trained)

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each row, after the cut."""
        return self._small.lengths

    @property
    def full_lengths(self) -> Sequence[int]:
        """Tokens of each row, before the cut."""
        return self._small.full_lengths

    @property
    def lines(self) -> Sequence[int]:
        """Each row's line in its file."""
        return self._small.lines
