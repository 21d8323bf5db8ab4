"""``--auto-fit``: the nearest settings that fit, with the same updates.

Applied before a run that the plan refuses, and after a rehearsal that ran out of memory: then the command restarts in a
fresh process, which reads the changes from ``run.json``, as a resumed run does. ``kit.train.fastest`` picks the fastest
of several settings that fit. Imports no torch.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.checks.preflight import check_run
from kit.cli.console import gigabytes
from kit.cli.findings import warning
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.validator import violations
from kit.config.yaml_writer import scalar
from kit.files.numbers import mapping
from kit.plan.after_oom import nearest_that_fits
from kit.plan.alternatives import SAME_UPDATE, mildest_that_fits
from kit.plan.padding_free import AUTO, KEY, is_decided
from kit.run_directory.liveness import is_this_process
from kit.train.fit import Fit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

    from kit.checks.preflight import Preflight
    from kit.config.resolve import Resolved
    from kit.machine.facts import Machine
    from kit.machine.platforms import Judgement
    from kit.plan.after_oom import OutOfMemory
    from kit.plan.alternatives import Alternative, PlannedRun
    from kit.stacks.stack import Stack
    from kit.train.job import TrainingJob

# Each takes less than the one before, so this ends by itself; a run that began six times should be looked at.
_MOST = 6
_COMMAND = (str(PROJECT_ROOT / "scripts" / "kit"), "train")


class RestartError(Exception):
    """The same command must restart in a fresh process."""


def check_fitted(
    resolved: Resolved, judgement: Judgement, machine: Machine, stack: Stack, *, download: bool
) -> tuple[Preflight, Fit | None]:
    """Check one run against one machine; if it is planned not to fit, with the nearest settings that do.

    Returns:
        The check of the settings to use, and what was changed; None if nothing was.
    """
    preflight = check_run(resolved, judgement, machine, stack, download=download)
    if not any(item.id == "config.memory" and item.severity == "error" for item in preflight.findings):
        return preflight, None
    fit = planned_fit(preflight.resolved, preflight.planned_run)
    if fit is None:
        message = "--auto-fit: no other micro-batch size with the same updates is planned to fit"
        return replace(preflight, findings=[*preflight.findings, warning("config.auto_fit", message)]), None
    preflight = check_run(applied(preflight.resolved, fit), judgement, machine, stack, download=download)
    note = warning("config.auto_fit", f"--auto-fit: {fit.words}: the same updates; {fit.reason}")
    return replace(preflight, findings=[*preflight.findings, note]), fit


def planned_fit(resolved: Resolved, planned_run: PlannedRun | None) -> Fit | None:
    """Return what to change where a run is planned not to fit; None where no settings of the same updates do.

    ``planned_run`` is the same, planned; None where it could not be.
    """
    choice = mildest_that_fits(planned_run) if planned_run else None
    if planned_run is None or choice is None or not choice.is_same_mathematics:
        return None
    limit = planned_run.device.limit
    room = f", {gigabytes(limit.size_bytes)} available" if limit else ""
    return fit_of(resolved, choice, f"{gigabytes(planned_run.plan.peak_memory_bytes)} planned{room}")


def fit_after(job: TrainingJob, refusal: OutOfMemory) -> Fit | None:
    """Return what to change after a refused rehearsal; None where nothing that keeps the updates should fit."""
    choice = nearest_that_fits(job.planned_run, refusal) if job.planned_run else None
    if choice is None:
        return None
    reason = f"the rehearsal ran out of memory at {refusal.rows} x {refusal.length:,} tokens"
    return fit_of(job.resolved, choice, reason, refusal.reached_bytes)


def fit_of(resolved: Resolved, choice: Alternative, reason: str, measured_bytes: int | None = None) -> Fit:
    """Return what a choice changes in a configuration."""
    after = dict(choice.changes)
    before = {key: resolved.value(key) for key in after}
    if is_decided(resolved):  # by the settings as they were; others would decide otherwise when it goes on
        after.setdefault(KEY, resolved.settings.training.padding_free)
        before[KEY] = AUTO
    return Fit(before, after, reason, measured_bytes)


def applied(resolved: Resolved, fit: Fit) -> Resolved:
    """Return a configuration with a fit's values in it, their origins saying so."""
    origins = {key: f"--auto-fit, was {scalar(fit.before[key])}" for key in fit.after}
    return resolved.with_changes(fit.after, origins)


def set_line(resolved: Resolved, fit: Fit) -> str:
    """Return the given overrides and the fit's, as make takes them."""
    typed = [
        key for key, origin in resolved.origins.items() if origin.startswith("command line") and key not in fit.after
    ]
    kept = [f"{key}={scalar(resolved.value(key))}" for key in typed]
    return f'SET="{" ".join([*kept, fit.words])}"'


def recorded(receipt: Mapping[str, Any], resolved: Resolved) -> list[Fit]:
    """Return the fits a receipt tells of, in order; none where this configuration is not the one they were made for.

    Nor any where one would change more than how an update is cut: the receipt may be anybody's.
    """
    rows = resolved.settings.effective_batch_size
    try:
        fits = [Fit.read(entry) for entry in receipt.get("auto_fit", ())]
        for fit in fits:
            if not fit.before.keys() == fit.after.keys() <= SAME_UPDATE:
                return []
            if any(resolved.value(key) != value for key, value in fit.before.items()):
                return []
            resolved = applied(resolved, fit)
            if violations(resolved.values) or resolved.settings.effective_batch_size != rows:
                return []
    except (KeyError, TypeError, ValueError, OverflowError):  # edited by hand
        return []
    return fits


def is_pending(receipt: Mapping[str, Any]) -> bool:
    """Tell whether this very process, before it began again, left this receipt: its number and start stay the same."""
    return bool(receipt.get("begins_again")) and is_this_process(mapping(receipt.get("process")))


def can_refit(job: TrainingJob) -> bool:
    """Tell whether a run may be fitted once more."""
    return job.auto_fit and len(job.fits) < _MOST


def begin_again(argv: Sequence[str]) -> NoReturn:
    """Replace this process by the same command in a fresh one, which holds none of the device's memory.

    ``argv`` are the command's arguments.
    """
    # Leave no driver's file open behind: its memory would stay taken as long as it is.
    for path in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own is closed by then
            if int(path.name) > sys.stderr.fileno():
                os.set_inheritable(int(path.name), False)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *_COMMAND, *argv])  # noqa: S606 - our own interpreter, no shell
