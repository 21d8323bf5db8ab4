"""Vulnerabilities that were looked at and are lived with: each with its reason and the day of its next review.

Read from ``locks/accepted-vulnerabilities.yaml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from kit.cli.findings import Finding, error
from kit.config.error import ConfigError
from kit.config.yaml_reader import read_document
from tools.advisories.answer import Vulnerability, canonical

if TYPE_CHECKING:
    from pathlib import Path

FILE = "locks/accepted-vulnerabilities.yaml"
_KEYS = ("id", "package", "version", "reason", "reviewed", "expires")
_LONGEST_DAYS = 366
_SHORTEST_REASON = 20  # characters: "wontfix" is none


@dataclass(frozen=True)
class Accepted:
    """One vulnerability of one version that does not fail the audit until ``expires``."""

    id: str
    package: str
    version: str
    reason: str
    reviewed: date
    expires: date

    def covers(self, found: Vulnerability) -> bool:
        """Tell whether it is this one, by any of its names, in this very version."""
        return self.package == found.package and self.version == found.version and self.id in found.names


def read_accepted(path: Path) -> list[Accepted]:
    """Read the file; none are accepted where there is none.

    Raises:
        ConfigError: The file is not what it has to be; all findings it holds.
    """
    if not path.exists():
        return []
    values = read_document(path).values
    entries = values.get("accepted")
    if set(values) != {"accepted"} or not isinstance(entries, list):
        raise ConfigError([_wrong(path, "must hold one list, `accepted:`, and nothing else")])
    accepted: list[Accepted] = []
    findings: list[Finding] = []
    for number, entry in enumerate(entries, start=1):
        problem = _problem(entry)
        if problem:
            findings.append(_wrong(path, f"entry {number} {problem}"))
        else:
            day = {key: _day(entry[key]) or date.min for key in ("reviewed", "expires")}
            accepted.append(
                Accepted(
                    entry["id"], canonical(entry["package"]), str(entry["version"]), entry["reason"],
                    day["reviewed"], day["expires"],
                )
            )  # fmt: skip
    if findings:
        raise ConfigError(findings)
    return accepted


def _problem(entry: Any) -> str:
    """Say what is wrong with an entry; empty where nothing is."""
    if not isinstance(entry, dict) or set(entry) != set(_KEYS):
        return f"must have exactly the keys {', '.join(_KEYS)}"
    wrong = next((key for key in _KEYS if not isinstance(entry[key], str) or not entry[key]), None)
    reviewed, expires = _day(entry["reviewed"]), _day(entry["expires"])
    if wrong:
        problem = f"has no text as its {wrong} (quote a version such as '2.1')"
    elif len(entry["reason"]) < _SHORTEST_REASON:
        problem = f"must give its reason in a sentence; found {entry['reason']!r}"
    elif reviewed is None or expires is None:
        problem = "must give reviewed and expires as days, such as 2026-11-23"
    elif reviewed > datetime.now(UTC).date():
        problem = f"was reviewed on {reviewed}, which is still to come"
    elif not 0 < (expires - reviewed).days <= _LONGEST_DAYS:
        problem = "must expire after its review, and within a year of it"
    else:
        problem = ""
    return problem


def _day(text: Any) -> date | None:
    try:
        return date.fromisoformat(str(text))
    except ValueError:
        return None


def _wrong(path: Path, message: str) -> Finding:
    return error("audit.accepted_file", message, "docs/SECURITY.md shows an entry", str(path))
