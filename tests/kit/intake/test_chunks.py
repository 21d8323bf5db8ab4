"""Where chunks are cut, and rows that cannot be sent to a process."""

from __future__ import annotations

from typing import Any

import pytest

from kit.data.conversations import RowProblem
from kit.intake import chunks
from kit.intake.chunks import in_chunks


def test_a_line_put_in_moves_only_the_piece_it_falls_into() -> None:
    lines = [(number, f"row {number}".encode()) for number in range(5000)]
    before = [tuple(raw for _, raw in chunk) for _, chunk in in_chunks(0, lines)]  # type: ignore[misc]
    lines.insert(2000, (9999, b"row 9999"))
    after = [tuple(raw for _, raw in chunk) for _, chunk in in_chunks(0, lines)]  # type: ignore[misc]
    assert len(before) > 10
    assert len(set(after) - set(before)) <= 2
    assert sum(map(len, after)) == 5001


@pytest.mark.parametrize(
    "row", [b"x" * 1000, {"a": "x" * 1000}, {"messages": [{"content": "x" * 500}, {"y" * 500: 1}]}]
)
def test_a_piece_of_work_is_as_small_in_memory_whatever_it_was_written_as(
    row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "_BYTES_AT_ONCE", 4000)
    assert {len(chunk) for _, chunk in in_chunks(0, [(number, row) for number in range(40)])} == {4}


def test_a_row_of_many_long_columns_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LONGEST_ROW_BYTES", 1000)
    ((_, (long, short)),) = in_chunks(0, [(1, {str(number): "x" * 900 for number in range(9)}), (2, {"a": "b"})])
    assert isinstance(long, RowProblem)
    assert short == (2, {"a": "b"})


def test_a_row_too_deep_to_be_sent_to_another_process_is_a_problem() -> None:
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    ((_, (problem, row)),) = in_chunks(0, [(1, {"a": deep}), (2, {"a": [[1]]})])
    assert isinstance(problem, RowProblem)
    assert problem.message == "is nested deeper than 100 levels"
    assert row == (2, {"a": [[1]]})
