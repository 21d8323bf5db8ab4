"""Tables and verdicts say what the ledger holds: honest ratios, and "not measured" where it holds nothing."""

from __future__ import annotations

from typing import Any

import pytest

from bench.goals import goals
from bench.known import Device, devices
from bench.measured_docs import is_measured, with_measurements
from bench.memory_cases import case_names
from bench.tables import memory_table, other_lines, speed_table
from bench.variants import BASELINE, SCALES, flop_per_token
from kit.plan.ledger import Place, Record
from kit.stacks.registry import GENERATIONS

PLACE = Place("7b", "NVIDIA H100", "580.1", 85_000_000_000, {"torch": "2.11.0"}, "3.12", "abc")
SCALE = SCALES["7b"]
PAGE = "# Page\n\nBefore.\n\n<!-- measured: {} -->\nold\n<!-- /measured -->\n\nAfter.\n"


def _records(results: dict[str, dict[str, Any]]) -> list[Record]:
    return [
        Record(name, PLACE, result, 1.0, f"2026-11-28T01:{number:02}:00+00:00", [], {"git_revision": "a" * 40})
        for number, (name, result) in enumerate(results.items())
    ]


def _device(results: dict[str, dict[str, Any]]) -> Device:
    (device,) = devices(_records(results))
    return device


def _step(rate: float, **more: Any) -> dict[str, Any]:
    base = {"tokens_per_second": rate, "milliseconds_per_step": 10.0, "attention": "sdpa", "timed_tokens": 100}
    return {**base, "peak_memory_bytes": 14_100_000_000, "reserved_memory_bytes": 15_000_000_000, **more}


FULL = {
    "ceiling": {
        "matmul_flop_per_second": 400 * flop_per_token(SCALE.shape, SCALE.length),
        "copy_bytes_per_second": 1.0,
    },
    f"speed/full/{BASELINE}": _step(90.0),
    "speed/full/no checkpointing, dropout 0": _step(240.0, joules=10.0),
    f"speed/full/{BASELINE}, again": _step(110.0),
    "speed/full/Liger kernels": {"failed": "out of memory", "final": True},
}


def test_ratios_are_taken_against_the_mean_of_both_baselines() -> None:
    table = speed_table(_device(FULL), "full")
    assert "| trl sft | 90 | 10 | 0.90 | 22% | 14.1 / 15.0 |  | sdpa |" in table
    assert "| no checkpointing, dropout 0 | 240 | 10 | 2.40 | 60% | 14.1 / 15.0 | 0.100 | sdpa |" in table


def test_what_is_not_measured_is_said_with_its_reason() -> None:
    table = "\n".join(speed_table(_device(FULL), "full"))
    assert "| Liger kernels | not measured: out of memory | | | | | | |" in table
    assert "| kit defaults | not measured | | | | | | |" in table
    assert "| Unsloth | not measured | | | | | | |" in table
    assert len(memory_table(_device(FULL))) == 2 + len(case_names(GENERATIONS["current"].traits, on_gpu=True))
    assert "- generation: not measured" in other_lines(_device(FULL))


def test_goals_are_reached_missed_or_not_measured() -> None:
    told = dict(goals(_device(FULL)))
    assert {words.split(":")[0]: held for words, held in told.items()} == {
        "full rows, at least 2 times trl's own defaults": True,
        "ragged rows, at least 3 times trl's own defaults": None,
        "at least 60% of the measured matrix product without checkpointing": True,
        "full rows, ahead of each peer": None,
        "ragged rows, ahead of each peer": None,
        "peak memory within 5% of the plan": None,
    }


def test_a_missed_goal_has_the_profiles_reason() -> None:
    profile = {"groups": {"attention": 0.1, "idle": 0.5, "matmul": 0.4}, "variant": "x"}
    slow = FULL | {"speed/full/no checkpointing, dropout 0": _step(150.0), "profile/full": profile}
    told = dict(goals(_device(slow)))
    (missed,) = [words for words, held in told.items() if words.startswith("at least 60%") and held is False]
    assert missed.endswith("a step is idle 50%, matmul 40%, attention 10%")
    assert [held for words, held in told.items() if words.startswith("full rows, at least")] == [False]


@pytest.mark.parametrize(("rate", "held"), [(239.0, True), (240.0, False)])
def test_a_peer_is_behind_or_not(rate: float, held: bool) -> None:
    told = goals(_device(FULL | {"peer/full/Unsloth": _step(rate)}))
    assert [reached for words, reached in told if words.startswith("full rows, ahead")] == [held]


@pytest.mark.parametrize(("measured", "held"), [(104, True), (106, False)])
def test_the_memory_goal_is_as_good_as_the_worst_case(measured: int, held: bool) -> None:
    cases = {
        f"memory/{name}": {
            "peak_bytes": {"predicted": 100, "measured": size},
            "reserved_bytes": 1,
            "device_used_bytes": 1,
        }
        for name, size in zip(case_names(GENERATIONS["current"].traits, on_gpu=True), (100, measured), strict=False)
    }
    told = goals(_device(cases))
    assert [reached for words, reached in told if words.startswith("peak memory")] == [held]


@pytest.mark.parametrize("part", ["speed", "memory", "data", "waiting"])
def test_a_part_of_a_page_is_written_anew_and_the_rest_is_left(part: str) -> None:
    page = PAGE.format(part)
    assert is_measured(page)
    written = with_measurements(page, [])
    assert "not measured" in written
    assert "old" not in written
    assert written.startswith("# Page\n\nBefore.\n")
    assert written.endswith("<!-- /measured -->\n\nAfter.\n")
    assert with_measurements(written, []) == written


def test_a_part_that_nobody_writes_is_an_error() -> None:
    with pytest.raises(KeyError):
        with_measurements(PAGE.format("nothing"), [])


def test_a_page_shows_the_ledgers_figures_with_device_versions_and_commit() -> None:
    written = with_measurements(PAGE.format("speed"), _records(FULL))
    assert "### NVIDIA H100" in written
    assert "NVIDIA H100, driver 580.1; torch 2.11.0; 2026-11-28, commit aaaaaaa." in written
    assert "| no checkpointing, dropout 0 | 240 |" in written
