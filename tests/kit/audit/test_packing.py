"""Packing by counts is what packing row by row gives."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.audit.packing import packing, sequences_for


def _row_by_row(lengths: list[int], size: int) -> int:
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            best = min(fitting)
            rooms.remove(best)
            rooms.append(best - length)
        else:
            rooms.append(size - length)
    return len(rooms)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_counts_are_packed_as_rows_are(lengths: list[int]) -> None:
    assert sequences_for(Counter(lengths), 40) == _row_by_row(lengths, 40)


def test_many_rows_take_no_longer_than_few() -> None:
    assert sequences_for({100: 10_000_000, 28: 10_000_000}, 128) == 10_000_000


def test_shares_are_of_tokens_after_the_cut() -> None:
    found = packing({50: 2, 200: 1}, 100)
    assert found.sequences == 2
    assert found.packed == pytest.approx(1.0)
    assert found.padded == pytest.approx(200 / 300)
