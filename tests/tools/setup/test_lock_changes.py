"""What a refresh changes can be read: what deserves a look first, nothing left out."""

from __future__ import annotations

import pytest

from tools.setup.lock_changes import Change, as_lines, as_markdown, changes

BEFORE = "same==1\nmoved==1.2.3\nleft==4\nleapt==1.9\nback==2.0\n"
AFTER = "same==1\nmoved==1.2.4\ncame==5\nleapt==2.0\nback==1.9\n"


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("", "1", "new"),
        ("1", "", "gone"),
        ("1.9", "1.10", "newer"),
        ("1.10", "1.9", "older"),
        ("1.9", "2.0", "major"),
        ("0.9", "0.10", "newer"),
        ("2024.1", "2026.1", "major"),
        ("1.0rc1", "1.0", "newer"),
        ("2.1.0+cu121", "2.1.1", "newer"),
    ],
)
def test_each_change_is_of_one_kind(before: str, after: str, kind: str) -> None:
    assert Change("x", before, after).kind == kind


def test_what_deserves_a_look_comes_first() -> None:
    assert [(one.name, one.kind) for one in changes(BEFORE, AFTER)] == [
        ("left", "gone"),
        ("came", "new"),
        ("back", "older"),
        ("leapt", "major"),
        ("moved", "newer"),
    ]


def test_a_terminal_shows_every_change_under_its_lock() -> None:
    assert as_lines({"a.txt": changes(BEFORE, AFTER), "b.txt": []}) == [
        "a.txt: 1 newer, 1 to a new major version, 1 older, 1 new, 1 gone",
        "  - left   4  (gone)",
        "  + came   5  (new)",
        "  < back   2.0 → 1.9  (older than before)",
        "  ! leapt  1.9 → 2.0  (new major version)",
        "    moved  1.2.3 → 1.2.4",
        "b.txt: unchanged",
    ]


def test_a_pull_request_gets_a_table_for_each_lock() -> None:
    text = as_markdown({"a.txt": changes(BEFORE, AFTER), "b.txt": []})
    assert "### `a.txt`: 1 newer" in text
    assert text.count("| `") == 5
    assert "| `left` | 4 |  | gone |" in text
    assert "Unchanged: `b.txt`." in text
    assert as_markdown({"a.txt": []}) == "No lock changed.\n"
