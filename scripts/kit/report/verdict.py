"""Did it learn? One sentence for a person, and findings for whatever is suspicious about a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.cli.findings import Finding, error, warning
from kit.files.numbers import finite, listed, logged, mapping, number
from kit.run_directory.liveness import KILLED, RESUME_HINT, UNDER_WAY

if TYPE_CHECKING:
    from kit.report.lengths import Lengths
    from kit.report.samples import Answers
    from kit.run_directory.history import Run
    from kit.runs.summary import Summary

GOOD, DOUBTFUL, BAD, UNDER_WAY_TONE = "good", "doubtful", "bad", "running"
_FEWEST_STEPS = 4  # two at each end: less shows noise, not learning
_LEARNT = 0.98  # the last losses' mean must be under this share of the first ones'
_OVERFITTED = 1.05  # the last validation loss over the lowest
_NOISE = 0.01  # nats: a rise below it is none


@dataclass(frozen=True)
class Verdict:
    """What a run came to."""

    sentence: str
    tone: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Losses:
    """The losses' course until the first that is not finite: means of the first and the last few."""

    count: int
    averaged: int
    first: float
    last: float
    broken_at: int | None
    all_zero: bool


def judge_run(run: Run, summary: Summary, answers: Answers, lengths: Lengths) -> Verdict:
    """Judge a run by what its folder holds."""
    losses = _course(run.steps)
    findings = (
        _state_findings(run, summary)
        + _loss_findings(losses, summary)
        + _gradient_findings(run.steps)
        + _evaluation_findings(run, summary)
        + _data_findings(run, lengths)
        + _answer_findings(answers)
    )
    bad = any(finding.severity == "error" for finding in findings)
    if summary.state in UNDER_WAY and not bad:
        tone = UNDER_WAY_TONE
    elif bad or summary.state == "failed":
        tone = BAD
    else:
        tone = DOUBTFUL if findings or losses.count < _FEWEST_STEPS else GOOD
    return Verdict(_sentence(summary, losses, answers), tone, tuple(findings))


def _course(steps: tuple[dict[str, Any], ...]) -> _Losses:
    found = [(line["step"], loss) for line in steps if (loss := logged(line, "loss")) is not None]
    broken_at = next((step for step, loss in found if not math.isfinite(loss)), None)
    real = [loss for step, loss in found if broken_at is None or step < broken_at]
    ends = max(1, min(20, len(real) // 50))
    return _Losses(
        count=len(real),
        averaged=ends,
        first=sum(real[:ends]) / ends if real else math.nan,
        last=sum(real[-ends:]) / ends if real else math.nan,
        broken_at=broken_at,
        all_zero=bool(real) and not any(real),
    )


def _sentence(summary: Summary, losses: _Losses, answers: Answers) -> str:
    parts = [_what_happened(summary, losses)]
    if summary.eval_loss is not None:
        lowest = summary.lowest_eval_loss
        rises = lowest is not None and _rises(lowest, summary.eval_loss)
        parts.append(
            f"validation loss {loss_text(summary.eval_loss)}" + (f", up from {loss_text(lowest or 0)}" if rises else "")
        )
    if answers.exact_match_adapter is not None:
        before = "" if answers.exact_match_base is None else f"{answers.exact_match_base:.0%} → "
        questions = f" on {answers.count:,} questions" if answers.count else ""
        parts.append(f"exact match {before}{answers.exact_match_adapter:.0%}{questions}")
    return "; ".join(parts) + "."


def _what_happened(summary: Summary, losses: _Losses) -> str:
    done = f"{summary.steps:,} steps" if summary.steps != 1 else "1 step"
    of = f"{summary.steps:,} of {summary.planned_steps:,} steps" if summary.planned_steps else done
    lead = {
        **dict.fromkeys(UNDER_WAY, f"Under way, {of} done. "),
        "interrupted": f"Stopped after {of}. ",
        "failed": f"Failed after {of}. ",
        KILLED: f"Its process died after {of}. ",
    }.get(summary.state, "")
    if not losses.count:
        broke = f"It broke: the loss is NaN or infinite at step {losses.broken_at}"
        return lead + ("No loss was logged" if losses.broken_at is None else broke)
    means = f" (means of {losses.averaged} steps)" if losses.averaged > 1 else ""
    course = f"training loss from {loss_text(losses.first)} to {loss_text(losses.last)}{means}"
    course += f" in {done}" if losses.broken_at is None else ""
    if losses.broken_at is not None:
        return f"{lead}It broke: the loss is NaN or infinite from step {losses.broken_at:,} on; before, {course}"
    if losses.all_zero:
        return f"{lead}It learned nothing: the loss is exactly 0 in all {done}"
    if losses.count < _FEWEST_STEPS:
        return f"{lead}Too short to tell whether it learns: {course}"
    if losses.last < losses.first * _LEARNT:
        return f"{lead}{'It is learning' if summary.state in UNDER_WAY else 'It learned'}: {course}"
    return f"{lead}It did not learn: {course}"


def _rises(lowest: float, last: float) -> bool:
    return last > lowest * _OVERFITTED and last - lowest > _NOISE


def loss_text(loss: float) -> str:
    """Write a loss with three digits that say something: ``8.59``, ``0.0014``."""
    if not math.isfinite(loss):
        return "not finite"
    return f"{loss:.2f}" if abs(loss) >= 1 else f"{loss:.3g}"


def _state_findings(run: Run, summary: Summary) -> list[Finding]:
    if summary.state == "failed":
        return [
            error("run.failed", f"the run failed: {run.failure}", "fix the cause, then train again with --overwrite")
        ]
    if summary.state == KILLED:
        what = "the receipt's state is training, but the process died: killed, or out of memory"
        fix = f"check the system log (dmesg, journalctl) for an out-of-memory kill; then {RESUME_HINT}"
        return [error("run.killed", what, fix)]
    if summary.state == "interrupted":
        what = "stopped by Ctrl-C or another signal: there is a checkpoint but no final adapter"
        return [warning("run.interrupted", what, f"the last checkpoint is in {run.folder}/checkpoints")]
    return []


def _loss_findings(losses: _Losses, summary: Summary) -> list[Finding]:
    if losses.broken_at is not None:
        what = f"the loss is NaN or infinite from step {losses.broken_at:,} on; later weights are lost"
        return [error("loss.not_finite", what, "lower training.learning_rate, or use bf16 instead of fp16")]
    if losses.all_zero:
        what = "the loss is exactly 0.0: no token was trained on; all labels may be masked"
        return [error("loss.zero", what, "run make validate, which lists the rows without a trainable token")]
    if losses.count < _FEWEST_STEPS and summary.state not in UNDER_WAY:
        logged = "1 logged step does" if losses.count == 1 else f"{losses.count} logged steps do"
        return [warning("loss.too_short", f"{logged} not show whether it learns")]
    if losses.count >= _FEWEST_STEPS and losses.last >= losses.first * _LEARNT and summary.state not in UNDER_WAY:
        what = f"the training loss did not fall: {loss_text(losses.first)} first, {loss_text(losses.last)} last"
        return [error("loss.flat", what, "check training.learning_rate, and that the rows fit the task")]
    return []


def _gradient_findings(steps: tuple[dict[str, Any], ...]) -> list[Finding]:
    norms = [(line["step"], norm) for line in steps if (norm := number(line.get("grad_norm"))) is not None]
    broken = next((step for step, norm in norms if not math.isfinite(norm)), None)
    if broken is not None:
        what = f"the gradient is NaN or infinite at step {broken:,}"
        return [warning("gradient.not_finite", what, "lower training.learning_rate, or set training.max_grad_norm")]
    if norms and not any(norm for _, norm in norms):
        return [error("gradient.zero", "the gradient is zero in every step: nothing was trained", "run make validate")]
    return []


def _evaluation_findings(run: Run, summary: Summary) -> list[Finding]:
    evaluations = [
        (line["step"], loss) for line in run.evaluations if (loss := finite(line.get("eval_loss"))) is not None
    ]
    if len(evaluations) < len(run.evaluations):
        return [error("evaluation.not_finite", "a validation loss is NaN or infinite", "lower training.learning_rate")]
    if not evaluations:
        asked_for = mapping(mapping(run.receipt.get("config")).get("data")).get("val_file")
        if not asked_for:
            what = "no validation file, so overfitting cannot be detected"
            return [warning("evaluation.none", what, "data.val_file=PATH")]
        if summary.state == "finished":
            return [warning("evaluation.never", f"{asked_for} was never evaluated", "lower training.eval_steps")]
        return []
    step, lowest = min(evaluations, key=lambda item: item[1])
    last = evaluations[-1][1]
    if _rises(lowest, last):
        kept = run.folder / "checkpoints" / f"checkpoint-{step}"
        fix = f"use {kept}, which has the lowest loss" if kept.is_dir() else "use fewer epochs, or more rows"
        what = (
            f"the validation loss rises again, from {loss_text(lowest)} at step {step:,} to {loss_text(last)}: "
            "overfitting"
        )
        return [warning("evaluation.rises", what, fix)]
    return []


def _data_findings(run: Run, lengths: Lengths) -> list[Finding]:
    found = []
    for file in listed(run.receipt.get("data")):
        entry = mapping(file)
        if entry.get("trainable_tokens") == 0 and entry.get("tokens"):
            found.append(error("data.no_loss", "no token has a label", "run make validate", str(entry.get("path"))))
    if lengths.truncated:
        limit = mapping(mapping(run.receipt.get("config")).get("training")).get("max_seq_length")
        what = f"{lengths.truncated:,} training rows were truncated at {limit} tokens"
        found.append(warning("data.truncated", what, "raise training.max_seq_length, or shorten the rows"))
    return found


def _answer_findings(answers: Answers) -> list[Finding]:
    before, after = answers.exact_match_base, answers.exact_match_adapter
    if before is not None and after is not None and after < before:
        what = f"the adapter answers worse than the base: exact match {before:.0%} before, {after:.0%} after"
        return [error("answers.worse", what, "check the samples, and compare the training rows with the questions")]
    return []
