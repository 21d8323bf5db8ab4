"""Compare a machine's result with the formulas or with another machine's: pure functions, without torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, ok, skipped
from kit.parity.contract import CASES
from kit.parity.results import difference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kit.parity.contract import Case
    from kit.parity.results import CaseResult, Numbers, Result

_WHERE_TO_LOOK = {
    "forward": "the first loss already differs: check loading, attention, the batch's masks and the loss",
    "backward": "the first loss agrees but its gradient differs: check the backward pass and LoRA's scaling",
    "update": "the first gradient agrees but later numbers differ: check clipping, the optimizer and the schedule",
}


def check_agreement(result: Result, contract: Mapping[str, str], exact: Mapping[str, Numbers]) -> list[Finding]:
    """Compare a result with the committed contract and with the formulas' numbers by mathematics (see ``Case``)."""
    findings = _contract(result.contract, contract, "the committed ones")
    for case in CASES:
        found = result.case(case.name)
        findings.append(_unusable(case, found) or _compared(case, found, exact[case.mathematics]))
    return findings


def judge_pair(mine: Result, theirs: Result) -> list[Finding]:
    """Compare two machines' results; each may differ by the tolerance, so the two by twice of it."""
    findings = _contract(mine.contract, theirs.contract, "the other file's")
    here, there = mine.numbers(), theirs.numbers()
    for case in CASES:
        if case.name in here and case.name in there:
            findings.append(_compared(case, mine.case(case.name), there[case.name], other=theirs.place))
        elif case.name in here or case.name in there:
            whose = "there" if case.name in here else "here"
            findings.append(skipped(f"pair.{case.name}", f"{case.name} against the other file: not run {whose}"))
    return findings


def _contract(mine: Mapping[str, str], theirs: Mapping[str, str], whose: str) -> list[Finding]:
    names = {"weights_sha256": "weights", "batch_sha256": "rows", "settings_sha256": "settings"}
    return [
        error(
            "parity.contract",
            f"the {what} are not {whose}: SHA-256 {mine.get(key, 'none')[:12]}… instead of "
            f"{theirs.get(key, 'none')[:12]}…, so the numbers cannot agree",
            "use the same revision of the kit on both sides; if the change is intended: make parity ARGS=--record",
        )
        for key, what in names.items()
        if mine.get(key) != theirs.get(key)
    ]


def _unusable(case: Case, found: CaseResult | None) -> Finding | None:
    if found is not None and found.failed:
        return error(f"parity.{case.name}", f"{case.name}: failed: {found.reason}", "make validate")
    if found is None or found.numbers is None:
        return skipped(f"parity.{case.name}", f"{case.name}: {found.reason if found else 'not measured'}")
    return None


def _compared(case: Case, found: CaseResult | None, expected: Numbers, other: str = "") -> Finding:
    assert found is not None and found.numbers is not None  # noqa: S101, PT018 - `_unusable` has taken those
    apart, tolerances = difference(found.numbers, expected), 2 if other else 1
    loss, gradient = tolerances * case.loss_tolerance, tolerances * case.gradient_tolerance
    name = f"pair.{case.name}" if other else f"parity.{case.name}"
    message = (
        f"{case.name}{f' against {other}' if other else ''}: loss within {_size(apart.loss)} (tolerance {loss:.0e}), "
        f"gradient norms within {_size(apart.gradient)} ({gradient:.0e}); {found.attention} attention"
    )
    if apart.loss <= loss and apart.gradient <= gradient:
        return ok(name, message)
    first = difference(found.numbers.first_update(), expected.first_update())
    stage = "forward" if first.loss > loss else "backward" if first.gradient > gradient else "update"
    place = f"largest differences: loss of {apart.loss_at}, gradient of {apart.gradient_at}"
    return error(name, f"{message}; {place}", _WHERE_TO_LOOK[stage])


def agreement(result: Result, expected: Mapping[str, Numbers]) -> dict[str, float]:
    """Return each case's largest relative difference of loss and gradients from the expected numbers."""
    measured = result.numbers()
    both = [case.name for case in CASES if case.name in measured and case.name in expected]
    apart = {name: difference(measured[name], expected[name]) for name in both}
    return {name: max(found.loss, found.gradient) for name, found in apart.items()}


def verdict_of(result: Result, findings: Sequence[Finding], exact: Mapping[str, Numbers]) -> str:
    """Write the verdict of the comparison with the formulas in one sentence."""
    expected = {case.name: exact[case.mathematics] for case in CASES if case.mathematics in exact}
    return verdict(result, "the formulas", findings, agreement(result, expected))


def verdict(result: Result, with_what: str, findings: Sequence[Finding], agreed: Mapping[str, float]) -> str:
    """Write the verdict in one sentence: ``… agrees with the formulas: within 8e-08 in float32, 2e-03 in bfloat16``."""
    severities = {finding.severity for finding in findings}
    if any(finding.id == "parity.contract" for finding in findings) or not severities - {"skipped"}:
        word = "cannot be compared"
    else:
        word = "does not agree" if "error" in severities else "agrees"
    sizes = ", ".join(f"{_size(value)} in {name}" for name, value in agreed.items()) or "no case ran"
    return f"{result.place} {word} with {with_what}: {'within ' if word == 'agrees' else ''}{sizes}"


def _size(value: float) -> str:
    if not value:
        return "0"
    return f"{value:.0e}" if math.isfinite(value) else "no number"
