"""How much of the memory and time of a run at one sequence length would be spent on tokens, and how much on padding."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Packing:
    """What rows take at one sequence length."""

    sequences: int
    packed: float  # share of the packed sequences that is tokens
    padded: float  # the same where every row is padded to the length


def packing(lengths: Mapping[int, int], max_seq_length: int) -> Packing:
    """Pack rows (their number by tokens before the cut) by best fit, the longest first, as trl's ``bfd`` does."""
    cut: dict[int, int] = {}
    for length, rows in lengths.items():
        cut[min(length, max_seq_length)] = cut.get(min(length, max_seq_length), 0) + rows
    tokens = sum(length * rows for length, rows in cut.items())
    rows_in_all = sum(cut.values())
    sequences = sequences_for(cut, max_seq_length)
    capacity = max_seq_length * max(1, sequences)
    return Packing(sequences, tokens / capacity, tokens / (max_seq_length * max(1, rows_in_all)))


def sequences_for(lengths: Mapping[int, int], size: int) -> int:
    """Count the sequences that best-fit-decreasing needs for rows no longer than ``size``.

    All rows of one length, and all sequences with the same room left, are moved at once, so the time depends on how
    many lengths there are and not on how many rows.
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
                # A row that opens a sequence leaves room that rows of the same length fill before another is opened.
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
