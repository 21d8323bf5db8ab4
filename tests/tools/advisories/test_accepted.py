"""An acceptance has a reason, a day and an end, or the file is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.error import ConfigError
from kit.stacks.locks import LOCKS, packages
from tools.advisories.accepted import FILE, read_accepted

if TYPE_CHECKING:
    from pathlib import Path

ENTRY = {
    "id": "CVE-2026-1",
    "package": "Torch",
    "version": '"2.1.0"',
    "reason": "the kit does not reach that code",
    "reviewed": "2026-11-01",
    "expires": "2027-04-30",
}


def _file(folder: Path, **changes: str | None) -> Path:
    path = folder / "accepted.yaml"
    entry = {**ENTRY, **changes}
    body = "\n    ".join(f"{key}: {value}" for key, value in entry.items() if value is not None)
    path.write_text(f"accepted:\n  - {body}\n", encoding="utf-8")
    return path


def test_the_projects_own_file_is_valid_and_about_what_the_locks_hold() -> None:
    pins = [packages((PROJECT_ROOT / lock.target).read_text(encoding="utf-8")) for lock in LOCKS]
    accepted = read_accepted(PROJECT_ROOT / FILE)
    assert accepted
    assert [one for one in accepted if not any(held.get(one.package) == one.version for held in pins)] == []


def test_an_entry_is_read(tmp_path: Path) -> None:
    (entry,) = read_accepted(_file(tmp_path))
    assert (entry.id, entry.package, entry.version) == ("CVE-2026-1", "torch", "2.1.0")
    assert read_accepted(tmp_path / "none.yaml") == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reason": None}, "exactly the keys"),
        ({"why": "x"}, "exactly the keys"),
        ({"reason": "wontfix"}, "its reason in a sentence"),
        ({"version": "2.1"}, "no text as its version"),
        ({"reviewed": "last week"}, "as days"),
        ({"reviewed": "2999-01-01", "expires": "2999-02-01"}, "still to come"),
        ({"expires": "2028-01-01"}, "within a year"),
        ({"expires": "2026-10-01"}, "after its review"),
    ],
)
def test_an_entry_without_reason_day_or_end_is_refused(
    tmp_path: Path, changes: dict[str, str | None], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        read_accepted(_file(tmp_path, **changes))


@pytest.mark.parametrize("text", ["accepted: 1\n", "others: []\n", "- a\n", "accepted: &a [*a]\n"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError):
        read_accepted(tmp_path / "a.yaml")
