"""A run and its rerun, compared: the adapter at the start, every loss, every evaluation, the adapter at the end.

On the same code, stack and kind of CPU all of it is equal to the last bit, and anything else is a difference. Elsewhere
bits may differ for good reasons, and losses are held to the tolerances below. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.cli.findings import Finding, error, ok, warning
from kit.files.numbers import mapping
from kit.runs.provenance import short
from kit.runs.traces import compare_evaluations, compare_losses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kit.run_directory.history import Run
    from kit.runs.traces import Gap, TraceComparison

# What two runs of one configuration may differ by where bits may, as a share of the loss.
# Measured, on CPUs (tests/test_stacks_agree.py): the two stacks, a hundred steps of a small model, agree to 1e-4 of the
# loss without dropout, and to 1 % with it, where each draws other numbers.
# Reasoned, not verified on a GPU: bfloat16 keeps 8 significant bits, so one rounding is up to 0.4 %; a loss is a mean
# over many tokens, in which roundings cancel, but each update carries them on into the next. One step's loss is of few
# rows and gets twice the room that an evaluation over the whole file gets.
STEP_TOLERANCE = 0.02
EVALUATION_TOLERANCE = 0.01
# Near zero a share says nothing: a run that learnt its rows by heart is at 0.001 and jumps by half of it.
ABSOLUTE_TOLERANCE = 1e-3

BIT_EQUAL, WITHIN, DIFFERENT = "bit-equal", "within tolerance", "different"


@dataclass(frozen=True)
class RerunVerdict:
    """A rerun's result.

    Attributes:
        verdict: ``bit-equal``, ``within tolerance`` or ``different``.
        sentence: The verdict with place and size of a difference.
        reasons: Why the bits may differ; empty where they must not.
        hashes: Of the adapter at its start and at its end, (then, now).
    """

    verdict: str
    sentence: str
    findings: list[Finding]
    losses: TraceComparison
    evaluations: TraceComparison
    reasons: list[str]
    hashes: dict[str, tuple[Any, Any]]

    def as_mapping(self) -> dict[str, Any]:
        """Return what ``--json`` shows."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "bits_expected": not self.reasons,
            "reasons": self.reasons,
            "training_loss": _trace_mapping(self.losses, STEP_TOLERANCE),
            "validation_loss": _trace_mapping(self.evaluations, EVALUATION_TOLERANCE),
            **{name: {"then": then, "now": now} for name, (then, now) in self.hashes.items()},
        }


def _trace_mapping(trace: TraceComparison, tolerance: float) -> dict[str, Any]:
    return {
        "compared": trace.compared,
        "different": len(trace.gaps),
        "missing_then": list(trace.only_second),
        "missing_now": list(trace.only_first),
        "tolerance": {"relative": tolerance, "absolute": ABSOLUTE_TOLERANCE},
        "first_difference": _gap_mapping(trace.first_gap),
        "largest_absolute": _gap_mapping(trace.largest_absolute),
        "largest_relative": _gap_mapping(trace.largest_relative),
    }


def _gap_mapping(gap: Gap | None) -> dict[str, Any] | None:
    if gap is None:
        return None
    names = {"first": "then", "second": "now"}
    return {names.get(key, key): value for key, value in gap.as_mapping().items()}


def judge_rerun(run: Run, rerun: Run, reasons: Sequence[str]) -> RerunVerdict:
    """Compare a run with its rerun; ``reasons`` say why bits may differ (``reasons_for_other_bits``)."""
    unlike = _unlike(run.receipt, rerun.receipt)
    reasons = [*reasons, *(finding.message for finding in unlike)]
    losses, evaluations = compare_losses(run, rerun), compare_evaluations(run, rerun)
    hashes = {key: (run.receipt.get(key), rerun.receipt.get(key)) for key in ("adapter_init_sha256", "adapter_sha256")}
    is_equal = {key: then is not None and then == now for key, (then, now) in hashes.items()}
    beyond = [
        step
        for trace, tolerance in ((losses, STEP_TOLERANCE), (evaluations, EVALUATION_TOLERANCE))
        if (step := _first_beyond(trace, tolerance if reasons else None)) is not None
    ]
    if losses.is_equal and evaluations.is_equal and all(is_equal.values()):
        verdict = BIT_EQUAL
    else:
        verdict = WITHIN if reasons and not beyond else DIFFERENT
    findings = [
        *unlike,
        _hash_finding("reproduce.adapter_init", "the adapter at its start", hashes["adapter_init_sha256"], verdict),
        _trace_finding("reproduce.losses", "training loss", losses, verdict),
        _trace_finding("reproduce.evaluations", "validation loss", evaluations, verdict),
        _hash_finding("reproduce.adapter", "the trained adapter", hashes["adapter_sha256"], verdict),
    ]
    sentence = _sentence(
        verdict, losses, evaluations, min(beyond, default=None), init_equal=is_equal["adapter_init_sha256"]
    )
    return RerunVerdict(verdict, sentence, findings, losses, evaluations, reasons, hashes)


def _unlike(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Finding]:
    """Name what the two receipts say differently of the run itself: rows as they were tokenised, threads, kernels."""
    found = []
    for part in ("identity", "compute"):
        was, is_ = mapping(then.get(part)), mapping(now.get(part))
        # A key in one alone is of another version of the code, which has its own finding; so have the packages.
        for key in sorted(was.keys() & is_.keys()):
            if was[key] != is_[key] and not key.startswith("packages."):
                message = f"{key} is {short(str(is_[key]))}, was {short(str(was[key]))}"
                found.append(warning(f"reproduce.{part}", message))
    return found


def _first_beyond(trace: TraceComparison, tolerance: float | None) -> int | None:
    """Return the first step that is not as it has to be: equal, or within a tolerance where one is given."""
    beyond = trace.first_gap
    if tolerance is not None:
        beyond = trace.first_beyond(relative=tolerance, absolute=ABSOLUTE_TOLERANCE)
    steps = [*([beyond.step] if beyond else []), *trace.only_first[:1], *trace.only_second[:1]]
    return min(steps, default=None)


def _hash_finding(id_: str, what: str, hashes: tuple[Any, Any], verdict: str) -> Finding:
    then, now = (short(str(each)) for each in hashes)
    if hashes[0] is not None and hashes[0] == hashes[1]:
        return ok(id_, f"{what} is the same: {now}")
    build = warning if verdict == WITHIN else error
    return build(id_, f"{what} is {now} and was {then}")


def _trace_finding(id_: str, what: str, trace: TraceComparison, verdict: str) -> Finding:
    if trace.is_equal:
        count = f"{trace.compared:,} value{'s' if trace.compared != 1 else ''}"
        return ok(id_, f"{what}: {count}, equal to the last bit" if trace.compared else f"{what}: none in either")
    parts = [f"{what}: {len(trace.gaps):,} of {trace.compared:,} values differ"]
    if trace.first_gap and trace.largest_absolute:
        parts += [f"first {_gap(trace.first_gap)}", f"most {_gap(trace.largest_absolute)}"]
    for steps, whose in ((trace.only_first, "the rerun lacks"), (trace.only_second, "the run lacked")):
        if steps:
            parts.append(f"{whose} step {steps[0]:,}{f' and {len(steps) - 1:,} more' if len(steps) > 1 else ''}")
    build = warning if verdict == WITHIN else error
    return build(id_, "; ".join(parts))


def _gap(gap: Gap) -> str:
    share = f" ({gap.relative:.2g} of it)" if gap.absolute != float("inf") else ""
    return f"at step {gap.step:,}: {gap.second:.9g}, was {gap.first:.9g}{share}"


def _sentence(
    verdict: str, losses: TraceComparison, evaluations: TraceComparison, step: int | None, *, init_equal: bool
) -> str:
    if verdict == BIT_EQUAL:
        more = f", {evaluations.compared:,} validation losses" if evaluations.compared else ""
        return f"bit-equal: the adapter, {losses.compared:,} training losses{more}"
    largest = max((gap for trace in (losses, evaluations) if (gap := trace.largest_relative)),
                  key=lambda gap: gap.relative, default=None)  # fmt: skip
    if verdict == WITHIN:
        equal = f"equal within {STEP_TOLERANCE:.0%} (validation: {EVALUATION_TOLERANCE:.0%}) of the loss"
        return f"{equal}; {f'most {_gap(largest)}' if largest else 'every loss is equal, but the adapter is not'}"
    if not init_equal:
        return "differs from the start: the initial adapters differ"
    if step is None:
        return "differs in the trained adapter, although every loss is equal to the last bit"
    return f"differs from step {step:,} on"
