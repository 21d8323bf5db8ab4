"""The same conversation, or group, is on one side only; shares are met; nothing but content and seed decides."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from kit.intake.ledger import TRAIN, VAL, Ledger
from kit.intake.split import MOST_BY_DEFAULT, Split, split_rows
from kit.intake.work import Row

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def _row(line: int, loose: str, group: str = "", label: str = "") -> Row:
    exact = f"{loose}/{line}".encode()
    return Row(line, exact, exact, loose.encode(), group.encode(), label, None, b"")


def _sides(folder: Path, rows: list[Row], split: Split) -> dict[int, int]:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    with contextlib.closing(Ledger(folder)) as ledger:
        ledger.add(0, rows, keep_text=False)
        split_rows(ledger, split)
        return dict(ledger.database.execute("SELECT line, side FROM rows"))


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6), st.sampled_from("xyz")), min_size=1, max_size=40),
    st.floats(0, 0.9),
    st.integers(0, 3),
    st.booleans(),
)
def test_nothing_that_belongs_together_is_torn_apart(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[tuple[int, int, str]],
    share: float,
    seed: int,
    by_group: bool,
) -> None:
    rows = [
        _row(line, f"c{content}", f"g{group}" if by_group else "", label)
        for line, (content, group, label) in enumerate(drawn, 1)
    ]
    folder = tmp_path_factory.getbasetemp() / "split"
    sides = _sides(folder, rows, Split(share, seed, by_group))
    together: dict[bytes, set[int]] = defaultdict(set)
    for row in rows:
        together[row.loose].add(sides[row.line])
        if by_group:
            together[row.group].add(sides[row.line])
    assert all(len(found) == 1 for found in together.values())
    assert TRAIN in sides.values()
    # Neither the order of the rows nor anything but seed and content decides.
    again = _sides(folder, rows[::-1], Split(share, seed, by_group))
    if len({row.label for row in rows}) == 1:
        assert sides == again


def test_the_share_is_met_to_the_row(tmp_path: Path) -> None:
    rows = [_row(line, f"c{line}") for line in range(1, 1001)]
    for share, expected in ((0.1, 100), (0.25, 250), (0.0004, 1), (0, 0)):
        assert list(_sides(tmp_path / "a", rows, Split(share)).values()).count(VAL) == expected


def test_by_default_a_twentieth_is_held_out_and_never_more_than_enough(tmp_path: Path) -> None:
    few, many = [[_row(line, f"c{line}") for line in range(count)] for count in (400, 30_000)]
    assert list(_sides(tmp_path / "a", few, Split()).values()).count(VAL) == 20
    assert list(_sides(tmp_path / "a", many, Split()).values()).count(VAL) == MOST_BY_DEFAULT


def test_each_label_has_its_share(tmp_path: Path) -> None:
    rows = [_row(line, f"c{line}", label="rare" if line % 10 == 0 else "usual") for line in range(1, 1001)]
    sides = _sides(tmp_path / "a", rows, Split(0.2))
    assert sum(sides[row.line] == VAL for row in rows if row.label == "rare") == 20
    assert sum(sides[row.line] == VAL for row in rows if row.label == "usual") == 180


def test_each_of_many_labels_is_looked_up_and_not_searched_for(tmp_path: Path) -> None:
    steps: list[int] = []
    with contextlib.closing(Ledger(tmp_path)) as ledger:
        ledger.add(0, [_row(line, f"c{line}", label=f"l{line}") for line in range(2000)], keep_text=False)
        ledger.database.set_progress_handler(lambda: steps.append(1), 1000)
        split_rows(ledger, Split(0.2))
    assert len(steps) < 2000  # thousands of the database's steps; each row for each label were 12,000


def test_a_large_group_is_not_held_out_for_a_small_share(tmp_path: Path) -> None:
    rows = [_row(line, f"c{line}", "large" if line <= 900 else f"g{line}") for line in range(1, 1001)]
    for seed in range(5):
        assert list(_sides(tmp_path / "a", rows, Split(0.05, seed, by_group=True)).values()).count(VAL) == 50


def test_another_seed_holds_out_other_rows(tmp_path: Path) -> None:
    rows = [_row(line, f"c{line}") for line in range(200)]
    assert _sides(tmp_path / "a", rows, Split(0.2, 1)) != _sides(tmp_path / "a", rows, Split(0.2, 2))


def test_one_conversation_is_trained_on_and_nothing_held_out(tmp_path: Path) -> None:
    assert _sides(tmp_path / "a", [_row(1, "c"), _row(2, "c")], Split(0.5)) == {1: TRAIN, 2: TRAIN}


def test_more_rows_move_few_others(tmp_path: Path) -> None:
    rows = [_row(line, f"c{line}") for line in range(1000)]
    before = _sides(tmp_path / "a", rows, Split(0.1))
    after = _sides(tmp_path / "a", [*rows, _row(1000, "new")], Split(0.1))
    assert sum(before[line] != after[line] for line in before) <= 2
