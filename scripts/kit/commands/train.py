"""Train: check everything, then fine-tune the base model with QLoRA and save the adapter with its receipt.

Run as:
    python scripts/kit train                                          the configuration that fits this machine
    python scripts/kit train configs/training_config_demo.yaml
    python scripts/kit train configs/training_config_h100.yaml training.learning_rate=1e-4 training.run_name=lower-rate
    python scripts/kit train configs/training_config_m4.yaml --resume auto          resume from the newest checkpoint
    python scripts/kit train configs/training_config_h100.yaml --auto-fit           make it fit, with the same updates
    python scripts/kit train configs/training_config_h100.yaml --auto-fit=fast      and time which settings are fastest

Writes outputs/<run_name>/: run.json (the receipt), metrics.jsonl, log.txt (this output), checkpoints/ and, at the
end, adapter/; if it fails, error.txt with the traceback.
A resumed run ends with the same bits as an uninterrupted one (docs/RELIABILITY.md).
Exit codes: 0 trained, 1 a check failed or the run did, 2 wrong use, 130, 143, 138 and 129 stopped by Ctrl-C, SIGTERM,
SIGUSR1 or SIGHUP after saving a checkpoint; Ctrl-C once more at a terminal stops at once.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kit.checks.environment import environment_findings
from kit.checks.preflight import Preflight, check_run, once, run_directory_findings
from kit.cli.command import found_and_fix
from kit.cli.console import fail, say
from kit.cli.failures import explain, run_check
from kit.cli.findings import Finding, error, has_errors, render, summary, warning
from kit.cli.traceback_file import keep_traceback, tracebacks_in
from kit.config.platforms import PLATFORMS
from kit.config.resolve import Resolved, resolve
from kit.data.batch_order import order_batches
from kit.environment.probe import probe as probe_environment
from kit.files.folder_lock import FolderLock
from kit.machine.target import Target, add_config_arguments, target_of
from kit.model.files import ModelFileError
from kit.model.usability import require_whole
from kit.model.weights import describe_base
from kit.plan.alternatives import planned_run_of
from kit.plan.run_plan import device_for
from kit.report import after_run
from kit.run_directory.liveness import take_run_lock
from kit.run_directory.log import RunLog
from kit.run_directory.receipt import read_receipt
from kit.stacks.stack import installed_stack
from kit.train.auto_fit import RestartError, applied, begin_again, check_fitted, is_pending, recorded
from kit.train.fastest import NAME, candidates_of
from kit.train.job import TrainingJob
from kit.train.resume import StartPoint, decide, identity_of, named, run_of
from kit.train.training import run as train

if TYPE_CHECKING:
    import argparse

    from kit.train.fit import Fit


def run(options: argparse.Namespace) -> int:
    options.auto_fit |= options.fastest
    wrong = _wrong_use(options)
    if wrong:
        return fail(*wrong)
    with RunLog() as log:
        target = target_of(options)
        resolved = resolve(target.config, target.overrides)
        is_free = not has_errors(_folder_findings(resolved, options))
        with tracebacks_in(resolved.settings.run_directory if is_free else None):
            return _train(resolved, target, options, log)


def _train(  # noqa: PLR0911 - each way out of the checks
    resolved: Resolved, target: Target, options: argparse.Namespace, log: RunLog
) -> int:
    resolved, fits = _recall(resolved, options)
    resolved, fits, preflight, findings = _check(resolved, fits, target, options)
    if has_errors(findings):
        return _refuse(findings)
    lock = FolderLock(resolved.settings.run_directory)
    try:
        # Looked at again under the lock: another run may have begun or ended there since.
        findings += run_check(lambda: take_run_lock(lock), "run.lock") or _folder_findings(resolved, options)
        try:
            job = _job(resolved, fits, target, preflight, options)
        except ModelFileError as exc:
            return _refuse([*findings, error("model.weights", *found_and_fix(exc))])
        findings += job.start.findings + _missing_auto_fit(job)
        if has_errors(findings):
            return _refuse(findings)
        render([finding for finding in findings if finding.severity == "warning"], sys.stderr)
        if job.start.is_finished:
            say(f"{resolved.settings.run_directory}: this run is finished; nothing to do", "green")
            return 0
        job = _with_candidates(job) if options.fastest else job
        folder = resolved.settings.run_directory
        return train(job, options.argv, lambda: after_run(folder), log)
    except RestartError:
        lock.release()
        return begin_again(options.argv)
    except OSError as exc:
        found = explain(exc)
        return _refuse([*findings, replace(found, fix=f"{found.fix}; {keep_traceback(exc)}")])
    finally:
        lock.release()


def _with_candidates(job: TrainingJob) -> TrainingJob:
    candidates, why_none = candidates_of(job)
    if why_none:
        say(why_none, "yellow")
    return replace(job, candidates=candidates)


def _missing_auto_fit(job: TrainingJob) -> list[Finding]:
    if job.auto_fit or not (job.start.earlier or {}).get("auto_fit") or not has_errors(job.start.findings):
        return []
    return [warning("resume.auto_fit", "the run in this directory used --auto-fit", "repeat --auto-fit")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--require", choices=PLATFORMS, help="refuse to run on any other platform")
    parser.add_argument(
        "--auto-fit",
        action="store_true",
        help="if the settings do not fit this device, use the nearest with the same updates; recorded, and kept by "
        "--resume",
    )
    parser.add_argument(
        NAME,
        action="store_true",
        dest="fastest",
        help="the same, and first time a few settings with the same updates and use the fastest that fits",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run of the same name")
    parser.add_argument(
        "--resume",
        default="never",
        metavar="auto|never|PATH",
        help="auto: from this run's newest complete checkpoint, if any; PATH: from that checkpoint or run; default: "
        "never",
    )
    parser.add_argument(
        "--allow-changed",
        action="append",
        default=[],
        metavar="KEY",
        help="resume despite a change of this key and record it; repeatable",
    )


def _wrong_use(options: argparse.Namespace) -> tuple[str, str] | None:
    """Return what is wrong with the command line, and the fix."""
    if options.resume not in {"auto", "never"} and not Path(options.resume).expanduser().is_dir():
        return f"--resume {options.resume}: no such directory", "--resume auto, never, or a checkpoint directory"
    if options.resume not in {"auto", "never"} and options.overwrite:
        return "--overwrite starts over, but --resume PATH resumes", "give one of them"
    return None


def _resumes(options: argparse.Namespace) -> bool:
    # In the container --resume auto is the default; --overwrite was typed.
    return options.resume != "never" and not options.overwrite


def _folder_findings(resolved: Resolved, options: argparse.Namespace) -> list[Finding]:
    settings = resolved.settings
    begun_here = options.auto_fit and is_pending(read_receipt(settings.run_directory) or {})
    return run_directory_findings(settings, overwrite=options.overwrite or _resumes(options) or begun_here)


def _recall(resolved: Resolved, options: argparse.Namespace) -> tuple[Resolved, list[Fit]]:
    """Take the settings that the run was fitted to before, where it goes on or begins again."""
    if not options.auto_fit:
        return resolved, []
    folder = resolved.settings.run_directory
    if _resumes(options) and options.resume != "auto":
        folder = run_of(named(options.resume))
    receipt = read_receipt(folder) or {}
    fits = recorded(receipt, resolved) if _resumes(options) or is_pending(receipt) else []
    for fit in fits:
        resolved = applied(resolved, fit)
    if fits:
        say(f"--auto-fit: {fits[-1].words}, because {fits[-1].reason}", "yellow")
    return resolved, fits


def _check(
    resolved: Resolved, fits: list[Fit], target: Target, options: argparse.Namespace
) -> tuple[Resolved, list[Fit], Preflight, list[Finding]]:
    """Check everything; with --auto-fit, settings planned not to fit give way to the nearest that do."""
    stack, judgement, settings = installed_stack(), target.judgement, resolved.settings
    say(f"{target.config} on {judgement.platform}: {judgement.reason}; {stack.name} stack", "bold")
    findings = _folder_findings(resolved, options)
    require = options.require
    if require and judgement.platform != require:
        findings.append(
            error(
                "platform.required",
                f"this run needs {require}, but this machine is {judgement.platform}: {judgement.reason}",
                f"run it on such a machine, or use {judgement.recommended_config} here",
            )
        )
    findings += environment_findings(probe_environment(settings, work=False), settings, judgement.platform)
    # The hub is asked only for a run that can begin.
    download = not has_errors(findings)
    if not options.auto_fit:
        preflight = check_run(resolved, judgement, target.machine, stack, download=download)
    else:
        preflight, fit = check_fitted(resolved, judgement, target.machine, stack, download=download)
        fits = [*fits, fit] if fit else fits
    return preflight.resolved, fits, preflight, once(findings + preflight.findings)


def _refuse(findings: list[Finding]) -> int:
    render([finding for finding in findings if finding.severity in {"warning", "error"}], sys.stderr)
    say(f"not started: {summary(findings)}. Fix the errors above, then run the same command again.", "red", "bold")
    return 1


def _job(
    resolved: Resolved, fits: list[Fit], target: Target, preflight: Preflight, options: argparse.Namespace
) -> TrainingJob:
    settings, stack, platform = resolved.settings, installed_stack(), target.judgement.platform
    files = [file for file in (preflight.train, preflight.val) if file]
    plan = order_batches(settings, *(file.rows for file in files))
    # What was not here before is downloaded now, and judged as the rest was.
    base = describe_base(
        require_whole(settings.model.model_name_or_path, settings.model.revision, stack.traits.reader, download=True)
    )
    identity = identity_of(settings, plan, stack, platform, base)
    # A fit since the checkpoint changed these and kept the updates.
    allowed = [*options.allow_changed, *(key for fit in fits for key in fit.after)]
    start = decide(options.resume, settings.run_directory, identity, allowed) if _resumes(options) else StartPoint()
    planned_run = preflight.planned_run
    if planned_run is None:  # the base's config.json came with its download
        device = device_for(settings, target.judgement, target.machine, stack)
        planned_run = planned_run_of(settings, device, *(file.rows for file in files))
    return TrainingJob(
        resolved,
        target.machine,
        platform,
        stack,
        files,
        plan,
        base,
        identity,
        start,
        planned_run,
        options.auto_fit,
        fits,
    )
