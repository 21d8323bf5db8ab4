"""Rows on their way to the trainer: what was encoded, in the plan's order, and never all of it as lists."""

from __future__ import annotations

import tracemalloc

import pytest

from kit.data.batch_order import FILLER
from kit.data.encoding import IGNORE_INDEX
from kit.data.token_rows import RowPacker, TokenBlock, TokenRows

pytest.importorskip("torch", reason="needs the libraries: make setup")


def _rows(count: int, length: int) -> TokenRows:
    packer, block = RowPacker(), TokenBlock()
    for line in range(1, count + 1):
        block.add([(line + at) % 30_000 for at in range(length)], [(length // 2, length)], line, length)
    packer.extend(block)
    return packer.rows()


def test_rows_come_in_the_plans_order_and_a_filler_carries_no_loss() -> None:
    from kit.train.trl_rows import rows_for_trl

    rows, order = _rows(5, 8), [3, 0, FILLER, 4, 0]
    served = rows_for_trl(rows, order)
    assert len(served) == 5
    expected = [
        {"input_ids": [rows[0].input_ids[0]], "labels": [IGNORE_INDEX]}
        if index == FILLER
        else {"input_ids": rows[index].input_ids, "labels": rows[index].labels}
        for index in order
    ]
    assert [served[place] for place in range(5)] == expected


def test_a_row_on_its_way_to_the_trainer_takes_no_more_than_it_did_packed() -> None:
    from kit.train.trl_rows import rows_for_trl

    rows = _rows(2_000, 500)
    rows_for_trl(rows, range(4))[0]  # what the libraries import and keep
    tracemalloc.start()
    try:
        served = rows_for_trl(rows, range(len(rows)))
        for place in range(0, len(served), 7):
            assert len(served[place]["input_ids"]) == 500
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < rows.tokens / 2  # bytes; as Python's lists they take 133 a token
