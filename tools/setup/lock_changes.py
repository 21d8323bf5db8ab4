"""What a new lock changes, for a person to read: by lock, what deserves a look marked, in a terminal or a pull request.

Standard library only, and for Python 3.9 on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.stacks.locks import packages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KINDS = ("gone", "new", "older", "major", "newer")  # what deserves a look comes first
_MARKS = {"gone": "-", "new": "+", "older": "<", "major": "!", "newer": " "}
_WORDS = {"gone": "gone", "new": "new", "older": "older than before", "major": "new major version", "newer": ""}


@dataclass(frozen=True)
class Change:
    """One package of one lock; ``before`` or ``after`` is empty where it came or went."""

    name: str
    before: str
    after: str

    @property
    def kind(self) -> str:
        """One of ``KINDS``."""
        if not self.after:
            return "gone"
        if not self.before:
            return "new"
        old, new = _release(self.before), _release(self.after)
        if new < old:
            return "older"
        return "major" if new[:1] != old[:1] else "newer"

    @property
    def versions(self) -> str:
        """What it was and what it is."""
        return " → ".join(version for version in (self.before, self.after) if version)


def changes(before: str, after: str) -> list[Change]:
    """Compare two compiled locks; what deserves a look comes first, then by name."""
    old, new = packages(before), packages(after)
    found = [
        Change(name, old.get(name, ""), new.get(name, ""))
        for name in old.keys() | new.keys()
        if old.get(name) != new.get(name)
    ]
    return sorted(found, key=lambda change: (KINDS.index(change.kind), change.name))


def as_lines(by_lock: Mapping[str, Sequence[Change]]) -> list[str]:
    """Write the changes for a terminal or a log: a line for each lock and, indented, for each package."""
    lines = []
    for target, found in by_lock.items():
        lines.append(f"{target}: {_count(found)}")
        widest = max((len(change.name) for change in found), default=0)
        for change in found:
            note = f"  ({_WORDS[change.kind]})" if _WORDS[change.kind] else ""
            lines.append(f"  {_MARKS[change.kind]} {change.name:<{widest}}  {change.versions}{note}")
    return lines


def as_markdown(by_lock: Mapping[str, Sequence[Change]]) -> str:
    """Write the changes as a pull request's text."""
    if not any(by_lock.values()):
        return "No lock changed.\n"
    parts = ["Written by `make lock`. Each lock pins the version with the hashes of its files.\n"]
    for target, found in by_lock.items():
        if found:
            rows = [f"| `{one.name}` | {one.before} | {one.after} | {_WORDS[one.kind]} |" for one in found]
            head = f"### `{target}`: {_count(found)}\n\n| package | before | after | |\n|---|---|---|---|"
            parts.append("\n".join([head, *rows]) + "\n")
    unchanged = [f"`{target}`" for target, found in by_lock.items() if not found]
    if unchanged:
        parts.append(f"Unchanged: {', '.join(unchanged)}.\n")
    return "\n".join(parts)


def _count(found: Sequence[Change]) -> str:
    if not found:
        return "unchanged"
    counts = {kind: sum(change.kind == kind for change in found) for kind in KINDS}
    names = {"gone": "gone", "new": "new", "older": "older", "major": "to a new major version", "newer": "newer"}
    return ", ".join(f"{counts[kind]} {names[kind]}" for kind in reversed(KINDS) if counts[kind])


def _release(version: str) -> tuple[int, ...]:
    """Return the release's numbers; what comes before or after a release (rc1, post1) counts as the release."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()
