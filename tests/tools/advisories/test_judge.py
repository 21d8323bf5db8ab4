"""What is known fails unless it was accepted, for that version and for a time; what is unknown never passes."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from tools.advisories.accepted import Accepted
from tools.advisories.answer import Answer, Vulnerability
from tools.advisories.judge import judge, judge_age

TODAY = date(2026, 11, 23)
FOUND = Vulnerability("torch", "2.1.0", "PYSEC-1", frozenset({"CVE-2026-1"}), ("2.2.0",))


def answer(*found: Vulnerability, unchecked: dict[str, str] | None = None, **more: Any) -> Answer:
    return Answer("pypi", "reference", "r.txt", {"torch": "2.1.0", "numpy": "1.26"}, found, unchecked or {}, **more)


def entry(*, id: str = "CVE-2026-1", version: str = "2.1.0", days: int = 10) -> Accepted:  # noqa: A002
    return Accepted(id, "torch", version, "looked at", TODAY - timedelta(30), TODAY + timedelta(days))


def ids(*arguments: Any) -> dict[str, str]:
    return {finding.id: finding.severity for finding in judge(*arguments, TODAY)}


def test_a_vulnerability_is_an_error_with_the_way_out() -> None:
    (finding, _) = judge([answer(FOUND)], [], TODAY)
    assert (finding.id, finding.severity, finding.where) == ("audit.vulnerable", "error", "r.txt")
    assert finding.message == "torch 2.1.0: CVE-2026-1 (PYSEC-1)"
    assert 'make lock ARGS="--upgrade-package torch" (mended in 2.2.0)' in finding.fix


@pytest.mark.parametrize("name", ["CVE-2026-1", "PYSEC-1"])
def test_an_accepted_one_passes_by_any_of_its_names_and_is_counted(name: str) -> None:
    (finding,) = judge([answer(FOUND)], [entry(id=name)], TODAY)
    assert finding.severity == "ok"
    assert finding.message.endswith("no vulnerabilities, 1 known and accepted")


def test_an_acceptance_that_is_over_counts_no_more_and_is_named() -> None:
    assert ids([answer(FOUND)], [entry(days=-1)]) == {
        "audit.vulnerable": "error",
        "audit.lock": "ok",
        "audit.expired": "error",
    }
    assert ids([answer(FOUND)], [entry(days=0)]) == {"audit.lock": "ok"}


def test_an_acceptance_is_for_one_version() -> None:
    assert ids([answer(FOUND)], [entry(version="2.1.1")]) == {
        "audit.vulnerable": "error",
        "audit.lock": "ok",
        "audit.unneeded": "warning",
    }


def test_an_acceptance_of_what_nobody_knows_any_more_is_named_unless_nobody_could_be_asked() -> None:
    assert ids([answer()], [entry()])["audit.unneeded"] == "warning"
    assert "audit.unneeded" not in ids([answer(unchecked={"torch": "no answer"})], [entry()])
    assert "audit.unneeded" not in ids([answer(is_complete=False)], [entry()])


def test_what_was_not_looked_up_is_never_ok() -> None:
    everything = {"torch": "down", "numpy": "down"}
    (finding,) = judge([answer(unchecked=everything)], [], TODAY)
    assert (finding.severity, finding.where) == ("skipped", "r.txt")
    assert "none of its packages could be looked up (pypi); down (2)" in finding.message
    found = judge([answer(unchecked={"numpy": "unknown there"})], [], TODAY)
    assert [one.severity for one in found] == ["ok", "skipped"]
    assert "1 of 2 packages not checked (pypi): numpy; unknown there (1)" in found[1].message


@pytest.mark.parametrize(("days", "severity"), [(0, "ok"), (30, "ok"), (31, "skipped")])
def test_an_old_database_checks_nothing(days: int, severity: str) -> None:
    assert judge_age(TODAY - timedelta(days), TODAY, 5, "x").severity == severity
    assert judge_age(None, TODAY, 5, "x").severity == "skipped"
