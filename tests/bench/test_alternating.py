"""Steps in turns: side by side to the last, and nobody waits for one that is gone."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from bench.alternating import Alternation, Competitors
from bench.random_base import write_random_base
from bench.variants import AS_TRL, BASELINE, SCALES, VARIANTS, Variant

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = next(variant for variant in VARIANTS if variant.name == BASELINE)


def _in_threads(*jobs: object) -> None:
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_two_sides_go_one_after_the_other() -> None:
    turns, order = Alternation(), []

    def take(side: int) -> None:
        with turns.leaving():
            turns.begin(side)
            for _ in range(50):
                order.append(side)
                turns.pass_on(side)

    _in_threads(lambda: take(1), lambda: take(0))
    assert order[:99] == [0, 1] * 49 + [0]


def test_a_side_that_fails_does_not_keep_the_other_waiting() -> None:
    turns, done = Alternation(), []

    def begin_and_fail() -> None:
        with turns.leaving():
            turns.begin(0)
            raise MemoryError

    def fail() -> None:
        with pytest.raises(MemoryError):
            begin_and_fail()

    def go_on() -> None:
        with turns.leaving():
            turns.begin(1)
            for number in range(3):
                done.append(number)
                turns.pass_on(1)

    _in_threads(fail, go_on)
    assert done == [0, 1, 2]


@pytest.fixture(scope="module")
def competitors(tmp_path_factory: pytest.TempPathFactory) -> Competitors:
    small = replace(SCALES["small"], warm_up=1, steps=3)
    base = write_random_base(small.shape, tmp_path_factory.mktemp("small") / "base", dtype=torch.float32, device="cpu")
    return Competitors(Variant("kit", AS_TRL), PLAIN, small, base)


@pytest.mark.slow
@pytest.mark.parametrize("kit_first", [True, False])
def test_both_train_the_same_number_of_steps(competitors: Competitors, tmp_path: Path, kit_first: bool) -> None:
    ours, theirs = competitors.steps_in_turns(tmp_path, kit_first=kit_first)
    assert len(ours) == len(theirs) == 3
    assert min(*ours, *theirs) > 0
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").count("\n") == 4


@pytest.mark.slow
def test_a_step_of_the_kit_calls_no_more_of_torch_than_one_of_trl(competitors: Competitors, tmp_path: Path) -> None:
    ours, theirs = competitors.operator_calls(tmp_path)
    assert 0 < ours <= theirs
