"""Packed rows are the rows that were put in, in memory and on the disk."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data import token_rows
from kit.data.encoding import EncodedRow, labelled, trained_tokens
from kit.data.token_rows import TokenBlock, TokenRows

SPANS = st.lists(st.integers(0, 20), min_size=2, max_size=6).map(
    lambda ends: [
        (begin, end) for begin, end in zip(sorted(ends)[::2], sorted(ends)[1::2], strict=False) if end > begin
    ]
)
ROWS = st.lists(st.tuples(st.lists(st.integers(0, 32000), min_size=1, max_size=20), SPANS), max_size=12)


@settings(deadline=None)
@given(ROWS, st.integers(1, 25), st.sampled_from([1 << 20, 8]))
def test_rows_come_back_as_they_went_in(
    rows: list[tuple[list[int], list[tuple[int, int]]]], length: int, memory: int
) -> None:
    packed, expected = TokenRows(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_rows, "_IN_MEMORY_BYTES", memory)
        for line, (ids, spans) in enumerate(rows, 1):
            block = TokenBlock()
            row = labelled(ids[:length], spans, line, len(ids))
            assert block.add(ids, spans, line, length) == bool(trained_tokens(spans, length))
            packed.extend(block)
            if trained_tokens(spans, length):
                expected.append(row)
            len(packed) and packed[-1]  # looked at in between: what comes later must not be lost
    assert list(packed) == expected
    assert packed[1:3] == expected[1:3]
    assert packed.tokens == sum(len(row.input_ids) for row in expected)
    assert list(packed.lines) == [row.line for row in expected]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), SPANS, st.integers(1, 14))
def test_trained_tokens_are_what_the_labels_say(ids: list[int], spans: list[tuple[int, int]], length: int) -> None:
    inside = [(begin, min(end, len(ids))) for begin, end in spans if begin < len(ids)]
    row = labelled(ids[:length], inside, 1, len(ids))
    assert row.trainable_tokens == trained_tokens(inside, length)


def test_a_row_that_is_not_there_is_an_index_error() -> None:
    rows = TokenRows()
    block = TokenBlock()
    block.add([1, 2, 3], [(1, 3)], 9, 10)
    rows.extend(block)
    assert rows[-1] == rows[0] == EncodedRow([1, 2, 3], [-100, 2, 3], 9, 3)
    for index in (1, -2):
        with pytest.raises(IndexError):
            rows[index]
