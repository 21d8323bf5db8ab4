"""The verdict: one true sentence, and a finding for everything suspicious."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import pytest

from kit.report.contents import gather
from kit.run_directory.process import this_process
from written_run import RESOLVED, falling, write_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kit.report.verdict import Verdict

CONFIG = RESOLVED.settings.as_mapping()


def verdict(folder: Path, **facts: Any) -> Verdict:
    return gather(write_run(folder, **facts)).verdict


def ids(found: Verdict) -> set[str]:
    return {finding.id for finding in found.findings}


def test_a_run_that_learnt_is_good_and_says_from_where_to_where(tmp_path: Path) -> None:
    found = verdict(tmp_path / "run")
    assert (found.tone, found.findings) == ("good", ())
    assert found.sentence == (
        "It learned: training loss from 2.88 to 0.591 (means of 2 steps) in 100 steps; validation loss 0.7."
    )


def test_answers_before_and_after_are_part_of_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "demo.json").write_text('{"exact_match_before": 0.0, "exact_match_after": 0.97, "questions": 100}')
    assert gather(folder).verdict.sentence.endswith("exact match 0% → 97% on 100 questions.")


def test_answers_of_an_earlier_run_of_the_same_name_are_not_this_runs(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "demo.json").write_text('{"exact_match_after": 0.97}')
    os.utime(folder / "demo.json", (0, 0))
    assert "exact match" not in gather(folder).verdict.sentence


@pytest.mark.parametrize(
    ("loss", "finding", "words"),
    [
        (lambda _: 0.0, "loss.zero", "It learned nothing: the loss is exactly 0"),
        (
            lambda step: 1.0 if step < 7 else math.nan,
            "loss.not_finite",
            "the loss is NaN or infinite from step 7 on; before, training loss from 1.00 to 1.00",
        ),
        (lambda _: math.inf, "loss.not_finite", "It broke: the loss is NaN or infinite at step 1"),
        (lambda _: 1.5, "loss.flat", "It did not learn: training loss from 1.50 to 1.50"),
        (lambda step: 1.0 + step, "loss.flat", "It did not learn"),
        (lambda _: None, "loss.too_short", "No loss was logged"),
    ],
)
def test_a_loss_that_is_suspicious_is_found(
    tmp_path: Path, loss: Callable[[int], float | None], finding: str, words: str
) -> None:
    found = verdict(tmp_path / "run", loss=loss)
    assert finding in ids(found)
    assert words in found.sentence
    assert found.tone != "good"


def test_null_in_the_metrics_is_a_loss_that_was_no_number(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", loss=lambda step: 1.0 if step < 7 else math.nan, evaluations=[(9, math.nan)])
    metrics = folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("NaN", "null"))
    found = gather(folder)
    assert ids(found.verdict) == {"loss.not_finite", "evaluation.not_finite"}
    assert found.curves.broken_steps[0] == 7
    assert math.isnan(found.summary.loss or 0)


def test_one_step_is_too_short_to_say(tmp_path: Path) -> None:
    found = verdict(tmp_path / "run", done=1, evaluations=[(1, 2.0)])
    assert "Too short to tell whether it learns" in found.sentence
    assert found.tone == "doubtful"


def test_a_validation_loss_that_rises_again_is_overfitting(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", evaluations=[(25, 1.0), (50, 0.8), (100, 1.3)])
    assert "from 0.8 at step 50 to 1.30" in gather(folder).verdict.findings[0].message
    (folder / "checkpoints" / "checkpoint-50").mkdir(parents=True)
    (finding,) = gather(folder).verdict.findings
    assert finding.id == "evaluation.rises"
    assert "validation loss 1.30, up from 0.8." in gather(folder).verdict.sentence
    assert finding.fix == f"use {folder}/checkpoints/checkpoint-50, which has the lowest loss"


def test_noise_in_the_validation_loss_is_no_overfitting(tmp_path: Path) -> None:
    assert not verdict(tmp_path / "a", evaluations=[(50, 0.0010), (100, 0.0019)]).findings
    assert not verdict(tmp_path / "b", evaluations=[(50, 1.00), (100, 1.04)]).findings


def test_a_validation_file_that_was_never_used_is_found(tmp_path: Path) -> None:
    assert ids(verdict(tmp_path / "run", evaluations=[])) == {"evaluation.never"}


def test_a_run_without_a_validation_file_is_told_so(tmp_path: Path) -> None:
    config = {**CONFIG, "data": {**CONFIG["data"], "val_file": None}}
    assert ids(verdict(tmp_path / "run", evaluations=[], config=config)) == {"evaluation.none"}


@pytest.mark.parametrize(
    ("state", "finding", "words", "tone"),
    [
        ("interrupted", "run.interrupted", "Stopped after 100 of 400 steps. It learned", "doubtful"),
        ("failed", "run.failed", "Failed after 100 of 400 steps. It learned", "bad"),
        ("training", "run.killed", "Its process died after 100 of 400 steps. It learned", "bad"),
    ],
)
def test_a_run_that_did_not_finish_says_why(tmp_path: Path, state: str, finding: str, words: str, tone: str) -> None:
    gone = {**this_process(), "created": 1.0, "start_ticks": 1}
    found = verdict(tmp_path / "run", state=state, steps=400, process=gone, error="RuntimeError: out of memory")
    assert finding in ids(found)
    assert found.sentence.startswith(words)
    assert found.tone == tone


def test_a_run_under_way_is_neither_good_nor_bad(tmp_path: Path) -> None:
    found = verdict(tmp_path / "run", done=100, steps=400, state="training", process=this_process())
    assert found.tone == "running"
    assert found.sentence.startswith("Under way, 100 of 400 steps done. It is learning: ")


def test_rows_that_were_cut_are_counted(tmp_path: Path) -> None:
    data = [{"path": "t.jsonl", "rows": 10, "truncated_rows": 3, "length_histogram": {"edges": [1, 2], "counts": [10]}}]
    (finding,) = verdict(tmp_path / "run", data=data).findings
    assert finding.message.startswith("3 training rows were truncated at 64 tokens")


def test_gradients_that_are_all_zero_mean_that_nothing_was_trained(tmp_path: Path) -> None:
    assert "gradient.zero" in ids(verdict(tmp_path / "run", line={"grad_norm": 0.0}))


def test_a_gradient_that_is_no_number_is_found(tmp_path: Path) -> None:
    assert "gradient.not_finite" in ids(verdict(tmp_path / "run", line={"grad_norm": math.inf}))


def test_an_adapter_that_answers_worse_than_its_base_is_bad(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", loss=falling)
    (folder / "evaluation.json").write_text('{"base": {"exact_match": 0.5}, "adapter": {"exact_match": 0.4}}')
    found = gather(folder).verdict
    assert (found.tone, ids(found)) == ("bad", {"answers.worse"})
