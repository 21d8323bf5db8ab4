"""The verdict: which case agrees, which does not, and where to look."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kit.parity.agreement import check_agreement, judge_pair, verdict_of
from kit.parity.contract import CASES
from kit.parity.results import CaseResult, Numbers, Result, read_reference

CONTRACT, EXACT = read_reference()
WHERE = {"device": "Some CPU", "platform": "cpu", "stack": "current"}


def scaled(numbers: Numbers, *, first: float = 1, later: float = 1, gradient: float = 1) -> Numbers:
    """Return numbers with factors on the first loss, the later ones, and the first update's gradient."""
    losses = (numbers.losses[0] * first, *(loss * later for loss in numbers.losses[1:]))
    modules = {name: norm * gradient for name, norm in numbers.module_norms.items()}
    return Numbers(losses, numbers.gradient_norms, modules)


def result(**off: float) -> Result:
    cases = tuple(CaseResult(case.name, scaled(EXACT[case.mathematics], **off), attention="sdpa") for case in CASES)
    return Result(CONTRACT, WHERE, cases)


def severities(found: Result) -> dict[str, str]:
    return {finding.id: finding.severity for finding in check_agreement(found, CONTRACT, EXACT)}


def test_the_formulas_agree_with_themselves() -> None:
    assert set(severities(result()).values()) == {"ok"}
    said = verdict_of(result(), check_agreement(result(), CONTRACT, EXACT), EXACT)
    assert said.startswith("Some CPU (cpu), current stack agrees with the formulas: within 0 in float32")


def test_each_precision_has_its_own_tolerance() -> None:
    assert severities(result(first=1.001)) == {
        "parity.float32": "error",
        "parity.nf4": "error",
        "parity.bfloat16": "ok",
        "parity.nf4-bfloat16": "ok",
    }


@pytest.mark.parametrize(
    ("off", "stage"),
    [
        ({"first": 1.1}, "the first loss already differs"),
        ({"gradient": 1.1}, "the first loss agrees but its gradient differs"),
        ({"later": 1.1}, "the first gradient agrees but later numbers differ"),
    ],
)
def test_the_stage_that_is_off_is_named(off: dict[str, float], stage: str) -> None:
    assert all(stage in finding.fix for finding in check_agreement(result(**off), CONTRACT, EXACT))


def test_other_weights_are_an_error_of_their_own() -> None:
    found = check_agreement(replace(result(), contract={**CONTRACT, "weights_sha256": "0" * 64}), CONTRACT, EXACT)
    assert [finding.id for finding in found if finding.severity == "error"] == ["parity.contract"]
    assert "cannot be compared with the formulas" in verdict_of(result(), found, EXACT)
    assert "the weights are not the committed ones: SHA-256 000000000000…" in found[0].message


def test_a_case_that_broke_is_an_error_and_one_that_cannot_run_is_not() -> None:
    cases = (CaseResult("float32", reason="RuntimeError: no", failed=True), CaseResult("nf4", reason="no 4-bit here"))
    assert severities(replace(result(), cases=cases)) == {
        "parity.float32": "error",
        "parity.nf4": "skipped",
        "parity.bfloat16": "skipped",
        "parity.nf4-bfloat16": "skipped",
    }


def test_two_machines_are_held_to_twice_the_tolerance() -> None:
    tolerance = CASES[0].loss_tolerance
    within, beyond = (judge_pair(result(), result(first=1 + factor * tolerance)) for factor in (1.9, 2.1))
    assert within[0].severity == "ok"
    assert beyond[0].severity == "error"
    assert "against Some CPU (cpu), current stack" in within[0].message


def test_what_one_machine_did_not_run_is_skipped_between_two() -> None:
    theirs = replace(result(), cases=result().cases[:1])
    found = {finding.id: (finding.severity, finding.message) for finding in judge_pair(result(), theirs)}
    assert found["pair.float32"][0] == "ok"
    assert found["pair.nf4"] == ("skipped", "nf4 against the other file: not run there")
