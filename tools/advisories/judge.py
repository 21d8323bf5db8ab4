"""Judge what is known about the locks: pure functions from answers and what was accepted to findings."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, ok, skipped, warning
from tools.advisories.accepted import FILE, Accepted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from tools.advisories.answer import Answer, Vulnerability

STALE_DAYS = 30
_SHOWN = 4


def judge(answers: Sequence[Answer], accepted: Sequence[Accepted], today: date) -> list[Finding]:
    """Turn every answer into findings, and name acceptances that are over or of no use."""
    valid = [entry for entry in accepted if entry.expires >= today]
    findings = [finding for answer in answers for finding in _judge_lock(answer, valid)]
    findings += [_expired(entry) for entry in accepted if entry not in valid]
    return findings + [finding for entry in valid for finding in _unneeded(entry, answers)]


def judge_age(newest: date | None, today: date, count: int, where: str) -> Finding:
    """Say how far a saved database knows. An old one leaves open what was published since, so it checks nothing."""
    message = f"holds {count:,} advisories, the newest of {newest or 'an unknown day'}"
    if newest and (today - newest).days <= STALE_DAYS:
        return ok("audit.database", message, where)
    age = f", {(today - newest).days:,} days ago" if newest else ""
    fix = f"save a newer one: at most {STALE_DAYS} days old"
    return skipped("audit.stale", f"{message}{age}: what was published since is not checked", fix, where)


def _judge_lock(answer: Answer, accepted: Sequence[Accepted]) -> list[Finding]:
    findings: list[Finding] = []
    passed: list[Vulnerability] = []
    for found in answer.vulnerabilities:
        if any(entry.covers(found) for entry in accepted):
            passed.append(found)
            continue
        known = f"{found.package} {found.version}: {found.best_name}"
        also = f" ({found.id})" if found.best_name != found.id else ""
        fix = (
            f'make lock ARGS="--upgrade-package {found.package}" (mended in {", ".join(found.fixed_in)}), '
            f"or give the reason to live with it in {FILE}"
            if found.fixed_in
            else f"no version mends it: give the reason to live with it in {FILE}, or do without the package"
        )
        findings.append(error("audit.vulnerable", f"{known}{also}", fix, answer.target))
    checked = len(answer.pins) - len(answer.unchecked)
    if checked:
        lived_with = f", {len(passed)} known and accepted" if passed else ""
        bad = len(answer.vulnerabilities) - len(passed)
        text = f"{checked} of {len(answer.pins)} packages looked up ({answer.source}): {bad or 'no'} vulnerabilities"
        findings.append(ok("audit.lock", f"{text}{' to mend' if bad else ''}{lived_with}", answer.target))
    if answer.unchecked:
        findings.append(_unchecked(answer))
    return findings


def _unchecked(answer: Answer) -> Finding:
    reasons = Counter(answer.unchecked.values())
    told = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
    names = sorted(answer.unchecked)
    if len(names) == len(answer.pins):
        what = f"not checked: none of its packages could be looked up ({answer.source})"
    else:
        listed = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        what = f"{len(names)} of {len(answer.pins)} packages not checked ({answer.source}): {listed}"
    fix = 'ask where the service can be reached, or another one (ARGS="--service osv"), or a saved database (FROM=…)'
    return skipped("audit.unchecked", f"{what}; {told}", fix, answer.target)


def _expired(entry: Accepted) -> Finding:
    message = f"{entry.id} of {entry.package} {entry.version} was accepted until {entry.expires}, which is over"
    return error("audit.expired", message, "look at it again: a new reason and date, or a newer version", FILE)


def _unneeded(entry: Accepted, answers: Sequence[Answer]) -> list[Finding]:
    holding = [answer for answer in answers if answer.pins.get(entry.package) == entry.version]
    about = f"{entry.id} of {entry.package} {entry.version} is accepted"
    if not holding:
        return [warning("audit.unneeded", f"{about}, and no lock holds that version", "delete the entry", FILE)]
    if any(entry.covers(found) for answer in holding for found in answer.vulnerabilities):
        return []
    if all(answer.is_complete and entry.package not in answer.unchecked for answer in holding):
        return [warning("audit.unneeded", f"{about}, and {holding[0].source} knows no such one", "delete it", FILE)]
    return []
