"""Which settings are tried before a run, and which of them is taken: for made-up seconds, without a device."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.machine import facts as machines
from kit.machine.platforms import judge
from kit.plan.alternatives import planned_run_of, same_updates
from kit.plan.run_plan import device_for
from kit.stacks.stack import stack_of
from kit.train import fastest
from kit.train.auto_fit import applied
from kit.train.fastest import UPDATES, candidates_of, choose
from kit.train.fit import Fit, TimedSettings
from kit.train.job import TrainingJob
from kit.train.resume import StartPoint

if TYPE_CHECKING:
    from kit.machine.facts import Machine

STACK = stack_of({"torch": "2.10.0", "transformers": "5.23.0", "bitsandbytes": "0.50.2"})
MACHINES = PROJECT_ROOT / "tests/fixtures/machines"
ROWS = "training.per_device_train_batch_size"


def _tried(*seconds: float, rows: int | None = None) -> TimedSettings:
    """Updates of 100 tokens each that took these seconds."""
    return TimedSettings({} if rows is None else {ROWS: rows}, seconds, 100 * len(seconds) / sum(seconds), 9)


ASKED = _tried(2.0, 4.0, 2.0)
FELL_OUT = TimedSettings({ROWS: 16}, problem="CUDA out of memory")


@pytest.mark.parametrize(
    ("tried", "taken", "said"),
    [
        pytest.param([ASKED, _tried(1.0, 2.0, 1.0, rows=8)], 1, "100.0% faster", id="faster"),
        pytest.param([ASKED, _tried(2.0, 4.0, 2.0, rows=8)], 0, "no other timed settings", id="as fast"),
        pytest.param([ASKED, _tried(3.0, 6.0, 3.0, rows=8)], 0, "no other timed settings", id="slower"),
        # 12.5 % in all, of which one update is all.
        pytest.param([ASKED, _tried(2.0, 4.0, 1.0, rows=8)], 0, "no other timed settings", id="within the spread"),
        pytest.param(
            [ASKED, _tried(1.0, 2.0, 1.0, rows=8), _tried(0.5, 1.0, 0.5, rows=4)], 2, "300.0%", id="the fastest"
        ),
        # The one that seems faster is so in one update alone.
        pytest.param(
            [ASKED, _tried(2.0, 1.6, 2.0, rows=8), _tried(1.6, 3.2, 1.6, rows=4)], 2, "25.0%", id="the next is sure"
        ),
        pytest.param([ASKED, FELL_OUT, _tried(1.0, 2.0, 1.0, rows=4)], 2, "100.0%", id="one does not fit"),
        pytest.param([ASKED, FELL_OUT], 0, "no other timed settings fit", id="no other fits"),
        pytest.param([FELL_OUT, _tried(9.0, 9.0, 9.0, rows=4)], 1, "CUDA out of memory", id="as asked does not fit"),
        pytest.param([FELL_OUT, FELL_OUT], 0, "no other timed settings fit", id="none fits"),
    ],
)
def test_the_fastest_is_taken_unless_what_was_asked_for_is_as_fast(
    tried: list[TimedSettings], taken: int, said: str
) -> None:
    place, reason = choose(tried)
    assert place == taken
    assert said in reason


@pytest.fixture
def job() -> TrainingJob:
    """Return a long run on an H100; its rows are not at hand."""
    machine = machines.read(MACHINES / "h100_80gb.json")
    resolved = resolve(PROJECT_ROOT / "configs/training_config_h100.yaml")
    plan: Any = SimpleNamespace(steps=1000)
    return _on(machine, TrainingJob(resolved, machine, "h100", STACK, (), plan, base={}, identity={}))


def _on(machine: Machine, job: TrainingJob) -> TrainingJob:
    settings = job.resolved.settings
    device = device_for(settings, judge(machine), machine, STACK)
    return replace(job, machine=machine, planned_run=planned_run_of(settings, device, None))


def test_the_plans_three_fastest_of_the_same_updates_are_tried(job: TrainingJob) -> None:
    fits, why_none = candidates_of(job)
    assert why_none == ""
    assert len(fits) == 3
    planned_run = job.planned_run
    assert planned_run is not None
    costs = [planned_run.with_changes(fit.after).cost for fit in fits]
    fitting = [item.cost for item in same_updates(planned_run) if item.plan.verdict == "fits"]
    assert costs == sorted(fitting)[:3]
    for fit in fits:
        settings = applied(job.resolved, fit).settings
        assert settings.effective_batch_size == job.resolved.settings.effective_batch_size
        assert planned_run.with_changes(fit.after).plan.verdict == "fits"


def test_nothing_that_the_configuration_would_be_refused_with_is_tried(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is taken is held to the same rules as it is read back, and would be tried for ever."""
    first, *others = candidates_of(job)[0]
    refused = applied(job.resolved, first).values
    monkeypatch.setattr(fastest, "violations", lambda values: ["wrong"] if values == refused else [])
    assert candidates_of(job)[0] == others


def _on_a_checkpoint(job: TrainingJob) -> TrainingJob:
    here: Any = SimpleNamespace(step=10)
    return replace(job, start=StartPoint(here))


def _short(job: TrainingJob) -> TrainingJob:
    plan: Any = SimpleNamespace(steps=4 * UPDATES - 1)
    return replace(job, plan=plan)


def _on_an_unknown_device(job: TrainingJob) -> TrainingJob:
    machine = machines.read(MACHINES / "linux_cpu.json")
    return _on(replace(machine, memory_available_bytes=None), job)


def _on_a_full_device(job: TrainingJob) -> TrainingJob:
    nvidia = job.machine.nvidia
    assert nvidia is not None
    gpus = tuple(replace(gpu, memory_used_bytes=gpu.memory_total_bytes) for gpu in nvidia.gpus)
    return _on(replace(job.machine, nvidia=replace(nvidia, gpus=gpus)), job)


def _tried_before(job: TrainingJob) -> TrainingJob:
    return replace(job, fits=[Fit({}, {}, "as fast", tried=(ASKED,))])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_on_a_checkpoint, "a resumed run keeps its settings"),
        (_short, "timing takes 20 updates, the run has 19"),
        (_on_an_unknown_device, "no memory plan"),
        (_on_a_full_device, "no other settings with the same updates are planned to fit"),
    ],
)
def test_where_nothing_can_be_compared_one_sentence_says_why(job: TrainingJob, change: Any, why: str) -> None:
    fits, sentence = candidates_of(change(job))
    assert fits == []
    assert sentence.startswith("--auto-fit=fast: skipped: ")
    assert why in sentence


def test_what_was_tried_is_not_tried_again(job: TrainingJob) -> None:
    assert candidates_of(_tried_before(job)) == ([], "")
