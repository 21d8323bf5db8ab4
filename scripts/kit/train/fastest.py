"""``--auto-fit=fast``: find the fastest settings of the same updates by timing a few before a run.

One process loads the base once and trains the run's first updates with the settings as they were asked for and with
the plan's best others, each with an adapter of its own. What it chose goes into ``run.json`` as whatever ``--auto-fit``
changes does, and the same command begins again in a fresh process: the run has nothing of what was tried in it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from kit.cli.console import duration, say
from kit.cli.quiet_libraries import quiet_imports
from kit.cli.refusals import first_line, is_out_of_memory
from kit.config.validator import violations
from kit.machine.one_device import use_judged_device
from kit.plan.alternatives import most_promising
from kit.supervise.stall import StallWatch
from kit.supervise.stall_report import StallReport, end_at_once
from kit.train.auto_fit import RestartError, applied, fit_of
from kit.train.fit import Fit, TimedSettings, as_typed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from kit.modeling.resident import ResidentBase
    from kit.run_directory.receipt import Receipt
    from kit.supervise.stop import StopRequest
    from kit.train.job import TrainingJob

NAME = "--auto-fit=fast"
UPDATES = 5  # of which the first is not timed
_MOST = 3
_GIVEN_SETTINGS = Fit({}, {}, "as given")


def candidates_of(job: TrainingJob) -> tuple[list[Fit], str]:
    """Return what to try before a run besides the settings as they are, best first; or nothing, and why.

    A run whose settings were timed before keeps the choice.
    """
    if any(fit.tried for fit in job.fits):
        return [], ""
    if job.start.checkpoint:
        return [], f"{NAME}: skipped: a resumed run keeps its settings"
    planned_run = job.planned_run
    if planned_run is None or planned_run.device.limit is None:
        return [], f"{NAME}: skipped: no memory plan for this model or device"
    promising = (fit_of(job.resolved, choice, "to be tried") for choice in most_promising(planned_run, _MOST))
    fits = [fit for fit in promising if not violations(applied(job.resolved, fit).values)]
    if not fits:
        return [], f"{NAME}: skipped: no other settings with the same updates are planned to fit"
    needed = (len(fits) + 1) * UPDATES
    if job.plan.steps < needed:
        return [], f"{NAME}: skipped: timing takes {needed} updates, the run has {job.plan.steps}"
    return fits, ""


def time_and_restart(job: TrainingJob, receipt: Receipt, stop: StopRequest) -> NoReturn:
    """Time the job's candidates and record the choice.

    Raises:
        RestartError: Always: the command restarts with the choice in a fresh process.
        StoppedError: A signal came.
    """
    use_judged_device()
    with quiet_imports():
        from kit.modeling.model import load_base_model
        from kit.modeling.resident import ResidentBase

    began = time.monotonic()
    resident = ResidentBase(load_base_model(job.resolved.settings, job.platform))
    candidates = (_GIVEN_SETTINGS, *job.candidates)
    say(f"{NAME}: timing {len(candidates)} settings with the same updates, {UPDATES} updates each")
    tried = []
    for fit in candidates:
        found = _try(job, fit, resident, receipt)
        stop.check()  # a library may have turned the wish to stop into a failure of its own
        tried.append(found)
        say(f"  {_line(found)}")
    stop.defer_signals()
    taken, reason = choose(tried)
    fit = replace(candidates[taken], reason=reason, tried=tuple(tried))
    receipt.finish("interrupted", auto_fit=[item.as_mapping() for item in (*job.fits, fit)], begins_again=True)
    say(f"{NAME}: using {fit.words}, after {duration(time.monotonic() - began)}: {reason}", "green")
    raise RestartError


def _try(job: TrainingJob, fit: Fit, resident: ResidentBase, receipt: Receipt) -> TimedSettings:
    from kit.train.timed_updates import time_updates

    settings = applied(job.resolved, fit).settings
    training, doing = settings.training, f"trying {fit.words}"
    report = StallReport(settings.run_directory, receipt, training.on_stall, list)
    end = end_at_once if training.on_stall == "stop" else None
    with (
        StallWatch(training.stall_timeout, report, lambda: doing, end) as stalls,
        resident.borrowed(job.stack.attention_of(settings, job.platform)) as base,
    ):
        try:
            seconds, peak = time_updates(base, settings, job.plan, job.platform, UPDATES, stalls.beat)
        except Exception as exc:  # noqa: BLE001 - whatever it fails of, the run as it was asked for can go on
            problem = first_line(exc)
            return TimedSettings(
                fit.after, problem=problem if is_out_of_memory(exc) else f"{type(exc).__name__}: {problem}"
            )
    tokens = job.plan.tokens[UPDATES - 1] - job.plan.tokens[0]
    return TimedSettings(fit.after, tuple(seconds), tokens / sum(seconds), peak)


def _line(tried: TimedSettings) -> str:
    words = as_typed(tried.after)
    if tried.problem is not None:
        return f"{words}: failed: {tried.problem}"
    return f"{words}: {tried.tokens_per_second:,.0f} tokens/s, {(tried.memory_bytes or 0) / 1e9:.2f} GB"


def choose(tried: Sequence[TimedSettings]) -> tuple[int, str]:
    """Return the chosen index, and why: the fastest, unless the given settings are as fast within the spread.

    The given settings come first. All trained the same rows, so the spread is that of the gains, update by update: half
    of what lies between the least and the largest.
    """
    asked = tried[0]
    ran = [place for place, item in enumerate(tried) if place and item.problem is None]
    ran.sort(key=lambda place: -tried[place].tokens_per_second)
    if not ran:
        return 0, "no other timed settings fit"
    if asked.problem is not None:
        return ran[0], f"the fastest; the given settings failed: {asked.problem}"
    for place in ran:
        gain, spread = _gain(asked, tried[place])
        if gain > spread:
            return place, f"{gain:.1%} faster than the given settings (spread {spread:.1%})"
    return 0, "no other timed settings are faster by more than the spread"


def _gain(asked: TimedSettings, other: TimedSettings) -> tuple[float, float]:
    gains = [before / after for before, after in zip(asked.seconds, other.seconds, strict=True)]
    return other.tokens_per_second / asked.tokens_per_second - 1, (max(gains) - min(gains)) / 2
