"""Turn failures, a command's and a check's, into one sentence with its fix."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kit.cli.command import A_BUG, found_and_fix
from kit.cli.findings import Finding, error
from kit.cli.refusals import first_line, is_failure, refusal_in
from kit.cli.traceback_file import keep_traceback

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SMALLER = (
    "halve training.per_device_train_batch_size and double "
    "training.gradient_accumulation_steps (the same update); then training.gradient_checkpointing=true; "
    "then a smaller training.max_seq_length (which changes what is learnt)"
)


class ExplainedError(RuntimeError):
    """A failure that knows its finding: its message is one sentence.

    Attributes:
        finding_id: Of the finding it becomes.
        fix: What to do; empty where the message ends with it.
    """

    finding_id: ClassVar[str]
    fix: ClassVar[str] = ""


def explain(exc: BaseException) -> Finding:
    """Explain an exception that ended a command's work."""
    line = first_line(exc)
    if isinstance(exc, ExplainedError):
        return error(exc.finding_id, *((line, exc.fix) if exc.fix else found_and_fix(exc)))
    refusal = refusal_in(exc)
    if refusal:
        fix = SMALLER if refusal.kind == "out_of_memory" else refusal.fix
        return error(f"run.{refusal.kind}", refusal.message, fix)
    if "loss is" in line.lower() and "nan" in line.lower():
        return error("run.not_finite", line, "lower training.learning_rate, or check the rows named")
    return error("run.bug", f"{type(exc).__name__}: {line}", A_BUG)


def run_check(check: Callable[[], Sequence[Finding]], name: str) -> list[Finding]:
    """Run one check; a check that crashes becomes an error finding, never a traceback."""
    try:
        return list(check())
    except BaseException as exc:
        if not is_failure(exc):
            raise
        where = keep_traceback(exc)
        refusal = refusal_in(exc)
        if refusal:
            what = f"the check {name!r} could not run: {refusal.message}"
            return [error(f"{name}.refused", what, f"{refusal.fix}; {where}")]
        what = f"the check {name!r} crashed: {type(exc).__name__}: {first_line(exc)}"
        return [error(f"{name}.crashed", what, f"report this as a bug; {where}")]
