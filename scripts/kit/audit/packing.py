"""How much of each sequence would be tokens and how much padding, packed and unpacked."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Packing:
    """How rows fill sequences of one length."""

    sequences: int
    packed: float  # share of tokens in packed sequences
    padded: float  # share of tokens with every row padded to the length


def packing(lengths: Mapping[int, int], max_seq_length: int) -> Packing:
    """Pack rows by best fit decreasing, as trl's ``bfd`` does; ``lengths`` are rows by tokens before truncation."""
    cut: dict[int, int] = {}
    for length, rows in lengths.items():
        cut[min(length, max_seq_length)] = cut.get(min(length, max_seq_length), 0) + rows
    tokens = sum(length * rows for length, rows in cut.items())
    rows_in_all = sum(cut.values())
    sequences = sequences_for(cut, max_seq_length)
    capacity = max_seq_length * max(1, sequences)
    return Packing(sequences, tokens / capacity, tokens / (max_seq_length * max(1, rows_in_all)))


def sequences_for(lengths: Mapping[int, int], size: int) -> int:
    """Count the sequences that best fit decreasing needs for rows no longer than ``size``.

    All rows of one length, and all sequences with the same room left, move at once, so the time depends on the number
    of lengths, not of rows.
    """
    room: dict[int, int] = {}  # sequences by the tokens that still fit
    spaces: list[int] = []  # the keys of room, sorted
    opened = 0

    def put(left: int, count: int) -> None:
        if left not in room:
            bisect.insort(spaces, left)
            room[left] = 0
        room[left] += count

    for length in sorted(lengths, reverse=True):
        rows = lengths[length]
        while rows:
            at = bisect.bisect_left(spaces, length)
            if at == len(spaces):
                # Rows of this length fill a newly opened sequence before another is opened.
                each = max(1, size // length) if length else rows
                new = -(-rows // each)
                opened += new
                full, rest = divmod(rows, each)
                if full:
                    put(size - each * length, full)
                if rest:
                    put(size - rest * length, 1)
                break
            space = spaces[at]
            moved = min(rows, room[space])
            room[space] -= moved
            if not room[space]:
                del room[space], spaces[at]
            put(space - length, moved)
            rows -= moved
    return opened
