"""Packed rows are the rows that were put in, in memory and on the disk."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoded_rows import labelled
from kit.data import token_rows
from kit.data.encoding import EncodedRow, trained_tokens
from kit.data.token_rows import NO_ROWS, RowPacker, TokenBlock, TokenRows

SPANS = st.lists(st.integers(0, 20), min_size=2, max_size=6).map(
    lambda ends: [
        (begin, end) for begin, end in zip(sorted(ends)[::2], sorted(ends)[1::2], strict=False) if end > begin
    ]
)
ROWS = st.lists(st.tuples(st.lists(st.integers(0, 32000), min_size=1, max_size=20), SPANS), max_size=12)


@given(ROWS, st.integers(1, 25), st.sampled_from([1 << 20, 8]))
def test_rows_come_back_as_they_went_in(
    rows: list[tuple[list[int], list[tuple[int, int]]]], length: int, memory: int
) -> None:
    packer, expected = RowPacker(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_rows, "_IN_MEMORY_BYTES", memory)
        for line, (ids, spans) in enumerate(rows, 1):
            block = TokenBlock()
            row = labelled(ids[:length], spans, line, len(ids))
            assert block.add(ids, spans, line, length) == bool(trained_tokens(spans, length))
            packer.extend(block)
            if trained_tokens(spans, length):
                expected.append(row)
        packed = packer.rows()
    assert list(packed) == expected
    assert packed[1:3] == expected[1:3]
    assert packed.tokens == sum(len(row.input_ids) for row in expected)
    assert list(packed.lines) == [row.line for row in expected]


def test_a_temporary_file_that_was_cut_is_an_error_and_no_shorter_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_rows, "_IN_MEMORY_BYTES", 8)
    rows = TokenRows.of([EncodedRow([1, 2, 3], [-100, 2, 3], 1, 3), EncodedRow([4, 5, 6], [-100, 5, 6], 2, 3)])
    os.truncate(rows.ids._file.fileno(), 16)
    assert rows[0].input_ids == [1, 2, 3]
    with pytest.raises(OSError, match="was truncated"):
        rows[1]


@given(ROWS, st.integers(1, 25))
def test_rows_cut_shorter_are_the_rows_that_were_encoded_shorter(
    rows: list[tuple[list[int], list[tuple[int, int]]]], length: int
) -> None:
    block, packer = TokenBlock(), RowPacker()
    kept = []
    for line, (ids, spans) in enumerate(rows, 1):
        inside = [(begin, min(end, len(ids))) for begin, end in spans if begin < len(ids)]
        if block.add(ids, inside, line, 20):
            kept.append((labelled(ids[:length], inside, line, len(ids)), trained_tokens(inside, length)))
    packer.extend(block)
    cut = packer.rows().cut(length)
    assert list(cut) == [row for row, _ in kept]
    assert cut.trained.tolist() == [trained for _, trained in kept]
    assert cut.lengths.tolist() == [len(row.input_ids) for row, _ in kept]


def test_two_answers_that_touch_one_token_are_counted_once_where_rows_are_cut() -> None:
    block, packer = TokenBlock(), RowPacker()
    block.add(list(range(9)), [(1, 4), (3, 6)], 1, 9)
    block.add(list(range(9)), [(0, 3)], 2, 9)
    packer.extend(block)
    assert packer.rows().cut(5).trained.tolist() == [4, 2]


def test_rows_are_packed_as_they_are_and_one_without_loss_is_refused() -> None:
    rows = [EncodedRow([1, 2, 3, 4, 5], [-100, 2, -100, 4, 5], 7, 9), EncodedRow([6, 7], [-100, 7], 8, 2)]
    assert list(TokenRows.of(rows)) == rows
    assert not NO_ROWS
    with pytest.raises(ValueError, match="line 3 has no tokens with loss"):
        TokenRows.of([EncodedRow([1, 2], [-100, -100], 3, 2)])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), SPANS, st.integers(1, 14))
def test_trained_tokens_are_what_the_labels_say(ids: list[int], spans: list[tuple[int, int]], length: int) -> None:
    inside = [(begin, min(end, len(ids))) for begin, end in spans if begin < len(ids)]
    row = labelled(ids[:length], inside, 1, len(ids))
    assert row.trainable_tokens == trained_tokens(inside, length)


def test_a_row_that_is_not_there_is_an_index_error() -> None:
    rows = TokenRows.of([EncodedRow([1, 2, 3], [-100, 2, 3], 9, 3)])
    assert rows[-1] == rows[0] == EncodedRow([1, 2, 3], [-100, 2, 3], 9, 3)
    for index in (1, -2):
        with pytest.raises(IndexError):
            rows[index]
