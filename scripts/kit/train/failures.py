"""Turn what a run can die of into one sentence with its fix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.command import A_BUG, found_and_fix
from kit.cli.findings import Finding, error, warning
from kit.cli.refusals import first_line, refusal_in
from kit.machine.nvidia_rules import gigabytes
from kit.model.files import ModelFileError
from kit.run_folder import checkpoints
from kit.supervise.stall import StalledError
from kit.supervise.watchdog import BadLossError
from kit.train.auto_fit import fit_after, set_line

if TYPE_CHECKING:
    from pathlib import Path

    from kit.plan.after_oom import Refusal
    from kit.train.job import Job

_SMALLER = (
    "take less at once and add it up: halve training.per_device_train_batch_size and double "
    "training.gradient_accumulation_steps (the same update); then training.gradient_checkpointing=true; "
    "then a smaller training.max_seq_length (which changes what is learnt)"
)
_STALLED = (
    "look where it stands in stalled.txt (a disk, a folder on the network, the GPU's driver); training.stall_timeout=… "
    "waits longer, training.on_stall=warn goes on waiting"
)
_LOST = (
    "the last checkpoint holds what was trained; train another base, or lora.target_modules that are plain linear "
    "layers, and please report it: it is a bug"
)
_ANOTHER_CHECKPOINT = "go on from another one (--resume PATH), or begin anew under another name (training.run_name=…)"
_TAMER = (
    "look at those rows (all are in run.json under bad_losses); lower training.learning_rate, which "
    "--allow-changed training.learning_rate lets a resumed run do; training.on_bad_loss=warn goes on regardless"
)


class RehearsalError(Exception):
    """The device refused the largest micro-batch, before the first step."""

    def __init__(self, refusal: Refusal) -> None:
        """Say what was seen, in one sentence."""
        self.refusal = refusal
        super().__init__(
            f"out of memory at the largest micro-batch, {refusal.rows} x {refusal.length:,} tokens, before the first "
            f"step: {gigabytes(refusal.reached_bytes)} in use and asked for, and the device had "
            f"{gigabytes(refusal.room_bytes)}"
        )


class MicroBatchError(Exception):
    """The trainer would take other micro-batches than the plan counts."""

    def __init__(self, rows: int, planned: int, devices: int) -> None:
        """Say what it would take, in one sentence."""
        at_once = f"{rows} rows at once on {devices} device{'' if devices == 1 else 's'}"
        super().__init__(f"the trainer would take {at_once}, and the plan counts {planned} on one")


class SavedAdapterError(Exception):
    """What was saved as the adapter is not what was trained."""

    def __init__(self, difference: str) -> None:
        """Say where they differ, in one sentence."""
        super().__init__(f"the saved adapter is not the trained one: {difference}; it was not kept")


_ONE_DEVICE = "start one process, without torchrun or accelerate launch, and leave it one GPU: CUDA_VISIBLE_DEVICES=0"
_NAMED: dict[type[Exception], tuple[str, str]] = {
    BadLossError: ("run.bad_loss", _TAMER),
    StalledError: ("run.stalled", _STALLED),
    MicroBatchError: ("run.micro_batch", _ONE_DEVICE),
    SavedAdapterError: ("run.adapter_lost", _LOST),
    checkpoints.ResumeError: ("run.resume", _ANOTHER_CHECKPOINT),
}


def explain(exc: BaseException, job: Job | None = None) -> Finding:
    """Explain an exception that ended a run.

    Args:
        exc: What ended it.
        job: The run; with it a refused rehearsal is answered with the nearest settings that fit.
    """
    if isinstance(exc, RehearsalError):
        return _refused(exc, job)
    if isinstance(exc, ModelFileError):
        return error("run.model", *found_and_fix(exc))
    line = first_line(exc)
    for kind, (name, fix) in _NAMED.items():
        if isinstance(exc, kind):
            return error(name, line, fix)
    refusal = refusal_in(exc)
    if refusal:
        fix = _SMALLER if refusal.kind == "out_of_memory" else refusal.fix
        return error(f"run.{refusal.kind}", refusal.message, fix)
    if "loss is" in line.lower() and "nan" in line.lower():
        return error("run.not_finite", line, "lower training.learning_rate, or look at the rows named")
    return error("run.bug", f"{type(exc).__name__}: {line}", A_BUG)


def _refused(exc: RehearsalError, job: Job | None) -> Finding:
    planned = f"; {gigabytes(job.predicted.peak_memory_bytes)} planned" if job and job.predicted else ""
    fit = fit_after(job, exc.refusal) if job else None
    fix = _SMALLER
    if job and fit:
        fix = f"{set_line(job.resolved, fit)} takes the same updates and should fit; --auto-fit takes it by itself"
    elif job and job.predicted:
        fix = "no other way to cut an update is planned to fit: a smaller training.max_seq_length (which changes what "
        fix += "is learnt), a smaller model, or a device with more free memory"
    return error("run.out_of_memory", f"{exc}{planned}", fix)


def way_on(folder: Path) -> list[Finding]:
    """Say what a run that ended in a failure can go on from."""
    found, _ = checkpoints.newest(folder / "checkpoints")
    if found is None:
        return []
    fix = "once mended, the same command with --resume auto (make: RESUME=auto)"
    return [warning("run.resumable", f"step {found.step:,} is saved and whole", fix, str(found.folder))]
