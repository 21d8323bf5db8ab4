"""A rerun is equal to the last bit, or close where bits may differ, or different from a step that is named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from kit.run_directory.history import Run, read_run
from kit.runs.rerun_verdict import BIT_EQUAL, DIFFERENT, WITHIN, judge_rerun
from written_run import falling, write_run

HASHES = {"adapter_init_sha256": "a" * 64, "adapter_sha256": "b" * 64}
REASONS = ["torch is 2.10.0, was 2.9.0"]


def _run(folder: Path, **changes: Any) -> Run:
    return read_run(write_run(folder, **{"done": 20, "evaluations": ((10, 1.1), (20, 0.7)), **HASHES, **changes}))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return _run(tmp_path / "run")


def test_equal_losses_and_hashes_are_bit_equal_whatever_was_expected(run: Run, tmp_path: Path) -> None:
    for reasons in ([], REASONS):
        outcome = judge_rerun(run, _run(tmp_path / "again"), reasons)
        assert outcome.verdict == BIT_EQUAL
        assert outcome.sentence == "bit-equal: the adapter, 20 training losses, 2 validation losses"
        assert {finding.severity for finding in outcome.findings} == {"ok"}


def test_a_last_bit_is_a_difference_where_bits_must_be_equal(run: Run, tmp_path: Path) -> None:
    def nudged(step: int) -> float:
        return math.nextafter(falling(step), 9) if step >= 7 else falling(step)

    again = _run(tmp_path / "again", loss=nudged)
    outcome = judge_rerun(run, again, [])
    assert (outcome.verdict, outcome.sentence) == (DIFFERENT, "differs from step 7 on")
    assert [finding.id for finding in outcome.findings if finding.severity == "error"] == ["reproduce.losses"]
    assert judge_rerun(run, again, REASONS).verdict == WITHIN


def test_where_bits_may_differ_losses_are_held_to_the_tolerance(run: Run, tmp_path: Path) -> None:
    again = _run(
        tmp_path / "again", loss=lambda step: falling(step) * (1.01 if step < 15 else 1.03), adapter_sha256="c"
    )
    outcome = judge_rerun(run, again, REASONS)
    assert (outcome.verdict, outcome.sentence) == (DIFFERENT, "differs from step 15 on")
    close = _run(tmp_path / "close", loss=lambda step: falling(step) * 1.01, adapter_sha256="c")
    outcome = judge_rerun(run, close, REASONS)
    assert outcome.verdict == WITHIN
    assert outcome.sentence.startswith("equal within 2% (validation: 1%) of the loss; most at step ")
    assert {finding.severity for finding in outcome.findings} == {"ok", "warning"}


def test_an_evaluation_has_a_tolerance_of_its_own(run: Run, tmp_path: Path) -> None:
    again = _run(tmp_path / "again", evaluations=((10, 1.1), (20, 0.7 * 1.015)))
    assert judge_rerun(run, again, REASONS).sentence == "differs from step 20 on"


def test_losses_near_zero_are_not_judged_by_their_share(tmp_path: Path) -> None:
    first = _run(tmp_path / "first", loss=lambda _step: 0.001)
    second = _run(tmp_path / "second", loss=lambda _step: 0.0015)
    assert judge_rerun(first, second, REASONS).verdict == WITHIN


def test_a_loss_that_is_no_number_on_one_side_is_beyond_every_tolerance(run: Run, tmp_path: Path) -> None:
    again = _run(tmp_path / "again", loss=lambda step: math.nan if step == 5 else falling(step))
    outcome = judge_rerun(run, again, REASONS)
    assert outcome.sentence == "differs from step 5 on"
    assert json.loads(json.dumps(outcome.as_mapping(), allow_nan=False))["training_loss"]["first_difference"] == {
        "step": 5, "then": falling(5), "now": None, "absolute": None, "relative": None,
    }  # fmt: skip


def test_a_step_the_rerun_lacks_is_a_difference(run: Run, tmp_path: Path) -> None:
    outcome = judge_rerun(run, _run(tmp_path / "again", done=12), REASONS)
    assert outcome.sentence == "differs from step 13 on"
    assert "the rerun lacks step 13 and 7 more" in "".join(finding.message for finding in outcome.findings)


def test_an_adapter_that_differs_alone_is_found(run: Run, tmp_path: Path) -> None:
    again = _run(tmp_path / "again", adapter_sha256="c" * 64)
    outcome = judge_rerun(run, again, [])
    assert outcome.sentence == "differs in the trained adapter, although every loss is equal to the last bit"
    assert judge_rerun(run, again, REASONS).sentence.endswith("every loss is equal, but the adapter is not")


def test_another_start_is_named_as_the_cause(run: Run, tmp_path: Path) -> None:
    again = _run(tmp_path / "again", loss=lambda step: falling(step) * 1.1, adapter_init_sha256="c" * 64)
    assert judge_rerun(run, again, []).sentence == "differs from the start: the initial adapters differ"


def test_a_run_without_hashes_is_never_bit_equal(tmp_path: Path) -> None:
    first, second = (_run(tmp_path / name, adapter_sha256=None) for name in ("first", "second"))
    assert judge_rerun(first, second, []).verdict == DIFFERENT


def test_what_only_the_reruns_own_receipt_tells_is_a_reason_too(tmp_path: Path) -> None:
    then = {"compute": {"threads": 2, "cuda": None}, "identity": {"data.rows": "1", "packages.torch": "1", "old": 1}}
    now = {"compute": {"threads": 1, "cuda": None}, "identity": {"data.rows": "2", "packages.torch": "2", "new": 1}}
    first, second = _run(tmp_path / "first", **then), _run(tmp_path / "second", loss=lambda _step: 1.0, **now)
    assert judge_rerun(first, second, []).reasons == ["data.rows is 2, was 1", "threads is 1, was 2"]
