"""A run that is killed and resumed again and again ends as one nobody touched. ``make torture`` is the long version."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torture.kills import Torture

pytestmark = pytest.mark.slow

KILLS = {"file": 30, "time": 22, "term": 6, "burst": 8, "call": 12}


def test_killed_more_than_fifty_times_and_resumed_each_run_ends_bit_equal(small_torture: Torture) -> None:
    runs = list(small_torture.storm(KILLS, per_run=6))
    report = small_torture.report
    assert report.faults == []
    assert report.finished == len(runs)
    assert report.kills == KILLS
    assert report.sigkills >= 50
    # Not all at one kind of moment: while it loads, while it trains, and while a file is written or renamed.
    assert set(report.kills_at) == {"starting", "training", "writing"}


def test_stopped_in_its_last_evaluation_a_run_ends_bit_equal(small_torture: Torture) -> None:
    def arrange() -> None:
        from kit.train import trainer

        kind, evaluate = trainer._PlanTrainer, trainer._PlanTrainer.evaluate

        def stopped(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.state.global_step == small_torture.steps:
                os.kill(os.getpid(), signal.SIGTERM)
            return evaluate(self, *args, **kwargs)

        kind.evaluate = stopped

    assert small_torture.attempt("last", in_child=arrange) == 143
    assert small_torture.attempt("last") == 0
    assert small_torture.is_as_expected("last")
