"""A checked run: start or resume, train, save, and record the outcome."""

from __future__ import annotations

import shutil
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kit.cli.console import gigabytes, say
from kit.cli.failures import explain
from kit.cli.findings import Finding, error, render
from kit.cli.redaction import redact
from kit.cli.refusals import is_failure
from kit.cli.traceback_file import NAME as ERROR_FILE
from kit.cli.traceback_file import keep_traceback
from kit.files.durable import fsync_file
from kit.files.numbers import finite
from kit.machine.energy import EnergyMeter
from kit.machine.platforms import judge
from kit.model.hub import hub_left_alone
from kit.plan.after_oom import RehearsalError
from kit.plan.padding_free import decision
from kit.run_directory import checkpoints
from kit.run_directory.checkpoints import resume_hint
from kit.run_directory.clearing import clear
from kit.run_directory.metrics_tail import parse_line
from kit.run_directory.names import CHECKPOINTS, METRICS, RECEIPT, RERUN_CONFIG
from kit.run_directory.provenance import describe_before, describe_data
from kit.run_directory.receipt import Receipt, carried_over
from kit.stacks.attention import choose
from kit.supervise.stop import SAVING, StoppedError, StopRequest
from kit.track.wandb_tracker import WandbTracker, new_id
from kit.train.auto_fit import RestartError, can_refit, fit_after, set_line
from kit.train.fastest import time_and_restart
from kit.train.session import TrainingSession, finish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from kit.run_directory.log import RunLog
    from kit.train.job import TrainingJob
    from kit.train.resume import StartPoint


def run(
    job: TrainingJob, argv: Sequence[str], afterwards: Callable[[], None] = lambda: None, log: RunLog | None = None
) -> int:
    """Train a job to its end, a signal or a failure; return the exit code.

    ``argv`` is for the receipt, ``log`` what this process says; ``afterwards`` is called once the run is over, while
    signals are still caught: launchers repeat them.

    Raises:
        RestartError: Other settings were chosen; the command restarts in a fresh process.
    """
    stop = StopRequest()
    receipt: Receipt | None = None
    curves = WandbTracker(job.resolved.settings)
    with stop.listening(), _followed_by(afterwards):
        try:
            try:
                stop.check()
                # Kept until the receipt is known here: what cut in would leave one that nobody completes.
                stop.answer = "stopping; nothing trained yet"
                receipt = _begin(job, argv, log)
                stop.answer = SAVING
                stop.raise_on_signal()
                if job.candidates:
                    with hub_left_alone():
                        time_and_restart(job, receipt, stop)
                curves.start(receipt.facts.get("wandb_id"))
                with hub_left_alone():
                    return TrainingSession(job, receipt, stop, curves).run()
            except BaseException as exc:
                if isinstance(exc, RestartError) or not is_failure(exc):
                    raise
                stop.defer_signals()
                if stop.has_raised:
                    raise StoppedError from exc
                return _fail(job, receipt, exc)
        except (StoppedError, RestartError) as exc:
            if isinstance(exc, RestartError) and stop.signal is None:
                raise
            if receipt is not None:
                finish(receipt, "interrupted", signal=stop.signal)
            say(f"stopped by {stop.name} before the first step; nothing is lost", "yellow")
            return stop.exit_code
        finally:
            stop.answer = "the run is over; this process ends"
            if receipt is not None:
                curves.end(receipt, stop)


@contextmanager
def _followed_by(afterwards: Callable[[], None]) -> Iterator[None]:
    """Do something once a run is over, however it ended; one that begins again is not."""
    try:
        yield
    except RestartError:
        raise
    except BaseException:
        afterwards()
        raise
    afterwards()


def _fail(job: TrainingJob, receipt: Receipt | None, exc: BaseException) -> int:
    """Record a failure, print its fix and return the exit code.

    Raises:
        RestartError: The command restarts with other settings.
    """
    folder = job.resolved.settings.run_directory
    finding = _refused(exc, job) if isinstance(exc, RehearsalError) else explain(exc)
    where = keep_traceback(exc, folder)
    if receipt is not None:
        kept = {"error_file": ERROR_FILE} if (folder / ERROR_FILE).exists() else {}
        finish(receipt, "failed", error=redact(f"{type(exc).__name__}: {exc}"), **kept)
        if isinstance(exc, RehearsalError):
            _fit_and_restart(job, receipt, exc)
    render([replace(finding, fix=f"{finding.fix}; {where}"), *resume_hint(folder)], sys.stderr)
    return 1


def _refused(exc: RehearsalError, job: TrainingJob) -> Finding:
    """Answer a refused rehearsal with the nearest settings that fit."""
    if job.predicted is None:
        return explain(exc)
    message = f"{exc}; {gigabytes(job.predicted.peak_memory_bytes)} planned"
    fit = fit_after(job, exc.refusal)
    if fit:
        fix = f"{set_line(job.resolved, fit)} keeps the updates and should fit; --auto-fit applies it automatically"
    else:
        fix = "no other micro-batch size is planned to fit: lower training.max_seq_length (this changes what is "
        fix += "learnt), or use a smaller model or a device with more free memory"
    return error(exc.finding_id, message, fix)


def _fit_and_restart(job: TrainingJob, receipt: Receipt, exc: RehearsalError) -> None:
    """Record settings that fit, if ``--auto-fit`` allows them and there are some.

    Raises:
        RestartError: The command restarts with them.
    """
    fit = fit_after(job, exc.refusal) if can_refit(job) else None
    if fit is None:
        return
    receipt.update(auto_fit=[item.as_mapping() for item in (*job.fits, fit)], begins_again=True)
    say(str(exc), "yellow")
    say(f"--auto-fit: restarting with {fit.words}, the same updates", "yellow")
    raise RestartError from exc


def _begin(job: TrainingJob, argv: Sequence[str], log: RunLog | None) -> Receipt:
    settings, plan, checkpoint = job.resolved.settings, job.plan, job.start.checkpoint
    folder = settings.run_directory
    from_step = checkpoint.step if checkpoint else 0
    if checkpoint:
        _check_metrics(checkpoint, plan.steps)
    is_rerun = job.resolved.path.resolve() == (folder / RERUN_CONFIG).resolve()
    _prepare_folder(folder, job.start, is_rerun=is_rerun)
    if log is not None:
        log.begin(folder, argv)
    gpu = judge(job.machine).gpu
    attention = choose(settings, job.stack, job.platform, gpu.compute_capability if gpu else None)
    receipt = Receipt(
        folder,
        earlier=job.start.earlier,
        from_step=from_step,
        energy=EnergyMeter(job.machine, job.platform).read,
        **describe_before(argv, settings, job.resolved.origins, job.machine, job.stack),
        platform=job.platform,
        data=describe_data(job.files, settings.training.max_seq_length),
        base_model=job.base,
        predicted=job.predicted.as_mapping() if job.predicted else None,
        identity=job.identity,
        checkpoints=_still_there(job.start, folder, from_step),
        changes_allowed=_changes_allowed(job.start, from_step),
        attention_choice=attention.as_mapping(),
        auto_fit=[fit.as_mapping() for fit in job.fits],
        steps=plan.steps,
        steps_done=from_step,
        # A run that goes on did not see how its adapter began.
        **({"adapter_init_sha256": checkpoint.facts.get("adapter_init_sha256")} if checkpoint else {}),
        **_wandb_id(job, from_step),
    )
    say(
        f"{len(plan.rows):,} rows, {plan.tokens[-1]:,} tokens in {plan.steps:,} steps of {plan.batch_size} rows"
        f" -> {folder}"
    )
    say(attention.line(job.platform))
    if reason := decision(job.resolved):
        say(reason)
    if checkpoint:
        say(f"resuming after step {from_step:,} from {checkpoint.folder}")
    return receipt


def _wandb_id(job: TrainingJob, step: int) -> dict[str, str]:
    """Return a new wandb id; a resumed run has one."""
    known = carried_over(job.start.earlier or {}, step)
    return {} if "wandb_id" in known or job.resolved.settings.training.report_to != "wandb" else {"wandb_id": new_id()}


def _still_there(start: StartPoint, folder: Path, step: int) -> list[dict[str, Any]]:
    """Return the earlier receipt's checkpoints that this run goes on from and after: their hashes hold for it too."""
    there = {number: path.name for number, path in checkpoints.folders(folder / CHECKPOINTS) if number <= step}
    listed = (start.earlier or {}).get("checkpoints", [])
    return [entry for entry in listed if there.get(entry.get("step")) == entry.get("name")]


def _changes_allowed(start: StartPoint, step: int) -> list[dict[str, Any]]:
    before: list[dict[str, Any]] = carried_over(start.earlier or {}, step).get("changes_allowed", [])
    now = [{"step": step, "key": key, "was": then, "is": now} for key, (then, now) in start.allowed.items()]
    return before + now


def _check_metrics(checkpoint: checkpoints.Checkpoint, steps: int) -> None:
    """Check a checkpoint's step and metrics before anything is replaced by them.

    Raises:
        ResumeError: It is beyond this run's steps, or its metrics are invalid.
    """
    if checkpoint.step > steps:
        raise checkpoints.ResumeError(
            f"{checkpoint.folder}: is at step {checkpoint.step:,}, but this run has only {steps:,}"
        )
    path, last = checkpoint.folder / METRICS, 0
    for number, text in enumerate(path.read_bytes().splitlines(), 1):
        line = parse_line(text)
        if line is None or not _is_line_until(line, checkpoint.step):
            raise checkpoints.ResumeError(f"{path}:{number}: not a valid metrics line up to step {checkpoint.step:,}")
        last = last if "eval_loss" in line else line["step"]
    if last != checkpoint.step:
        raise checkpoints.ResumeError(
            f"{path}: ends at step {last:,}, but the checkpoint is at step {checkpoint.step:,}"
        )


def _is_line_until(line: dict[str, Any], steps: int) -> bool:
    """Tell whether a line could be one that a run wrote until a step; a key that is missing is younger than it."""
    values = [line.get(key) for key in ("eval_loss", "loss", "grad_norm", "seconds")]
    return 0 < line["step"] <= steps and all(value is None or finite(value) is not None for value in values)


def _prepare_folder(folder: Path, start: StartPoint, *, is_rerun: bool = False) -> None:
    """Bring the run directory to where the run begins: nothing, or exactly what the checkpoint knows."""
    parent = folder / CHECKPOINTS
    checkpoints.sweep(parent)
    (folder / ERROR_FILE).unlink(missing_ok=True)  # of the session that failed; its sentence stays in the receipt
    if start.checkpoint is None:
        if stays := clear(folder, is_rerun=is_rerun):
            names = ", ".join(str(path.relative_to(folder)) for path in stays)
            say(f"{folder}: keeps files the kit did not write: {names}", "yellow")
        folder.mkdir(parents=True, exist_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f".{RECEIPT}.*"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    for step, later in checkpoints.folders(parent):
        if step > start.checkpoint.step:
            checkpoints.set_aside(later)
    aside = folder / f".{METRICS}.partial"
    shutil.copyfile(start.checkpoint.folder / METRICS, aside)
    fsync_file(aside)
    aside.replace(folder / METRICS)
