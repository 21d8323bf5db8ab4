"""Measurements are taken in order of worth as far as the time goes; whatever stops them, the next call goes on."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from bench.conductor import LEFT_OUT, Orders, Outcome, conduct
from bench.measurements import Measurement
from kit.plan.ledger import Place, Record, append, read

if TYPE_CHECKING:
    from pathlib import Path

PLACE = Place("small", "made up", "", 0, {}, "3.11", "code")
NAMES = [f"kind/{number}" for number in range(6)]
LIST = [Measurement(name, "?", 0.1) for name in NAMES]
# Answers each request at once, but for those named by the environment: one hangs, one ends its process.
WORKER = """
import json, os, sys, time
folder = sys.argv[3]
with open(folder + "/started", "a") as log:
    log.write("x")
for line in sys.stdin:
    name = json.loads(line)["measurement"]
    if name == os.environ.get("HANGS"):
        time.sleep(60)
    if name == os.environ.get("DIES"):
        print("the last word", file=sys.stderr, flush=True)
        os._exit(9)
    result = {"failed": "no network"} if name == os.environ.get("FAILS") else {"tokens_per_second": 7.0}
    print(json.dumps(result), flush=True)
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.conductor._START_S", {"small": 0.2})


def _orders(folder: Path, **changes: Any) -> Orders:
    told: dict[str, Any] = {
        "limit": 60.0,
        "again": False,
        "command": ["bench/prove.py"],
        "device": "cpu",
        "folder": folder,
        "ledger": folder / "ledger.jsonl",
        "log": folder / "worker.log",
        "worker": (sys.executable, "-c", WORKER),
    }
    return Orders(**told | changes)


def _conduct(folder: Path, chosen: list[Measurement] = LIST, **changes: Any) -> list[Outcome]:
    return conduct(chosen, {}, PLACE, _orders(folder, **changes), lambda _: None)


def _names(folder: Path) -> list[str]:
    return [record.measurement for record in read(folder / "ledger.jsonl")]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("cut", range(len(NAMES)))
def test_a_call_cut_short_at_any_measurement_leaves_a_whole_ledger_and_the_next_goes_on(
    cut: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANGS", NAMES[cut])
    began = time.monotonic()
    outcomes = _conduct(tmp_path, limit=2.0)
    assert time.monotonic() - began < 20
    assert _names(tmp_path) == NAMES[:cut]
    assert outcomes[cut].why_not.startswith("stopped after")
    assert [outcome.why_not for outcome in outcomes[cut + 1 :]] == [LEFT_OUT] * (len(NAMES) - cut - 1)
    monkeypatch.delenv("HANGS")
    again = _conduct(tmp_path)
    assert [outcome.why_not for outcome in again[-cut:]] == ["measured before"] * cut or cut == 0
    assert sorted(_names(tmp_path)) == NAMES


@pytest.mark.usefixtures("quick")
def test_one_process_takes_them_all_and_what_goes_apart_has_its_own(tmp_path: Path) -> None:
    _conduct(tmp_path, [*LIST[:3], Measurement("kind/apart", "?", 0.1, apart=True), *LIST[3:]])
    assert (tmp_path / "started").read_text() == "xx"
    assert len(_names(tmp_path)) == len(NAMES) + 1


@pytest.mark.usefixtures("quick")
def test_a_process_that_dies_costs_one_measurement_and_its_last_word_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIES", NAMES[2])
    outcomes = _conduct(tmp_path)
    assert [outcome.record is not None for outcome in outcomes] == [True] * len(NAMES)
    record = outcomes[2].record
    assert record is not None
    assert record.result == {"failed": "its process ended with exit code 9: the last word"}
    monkeypatch.delenv("DIES")
    _conduct(tmp_path)
    assert _names(tmp_path) == [*NAMES, NAMES[2]]


@pytest.mark.usefixtures("quick")
def test_what_is_measured_is_not_measured_again_unless_asked_for(tmp_path: Path) -> None:
    _conduct(tmp_path, LIST[:2])
    _conduct(tmp_path, LIST[:3])
    assert _names(tmp_path) == NAMES[:3]
    _conduct(tmp_path, LIST[:1], again=True)
    assert _names(tmp_path) == [*NAMES[:3], NAMES[0]]


@pytest.mark.usefixtures("quick")
def test_the_unknown_comes_before_what_another_code_was_measured_with(tmp_path: Path) -> None:
    older = Place("small", "made up", "", 0, {}, "3.11", "older code")
    for name in NAMES[:3]:
        append(tmp_path / "ledger.jsonl", Record(name, older, {"tokens_per_second": 1.0}, 0.1, "2026", [], {}))
    outcomes = _conduct(tmp_path)
    assert [outcome.measurement.name for outcome in outcomes] == [*NAMES[3:], *NAMES[:3]]


@pytest.mark.usefixtures("quick")
def test_what_is_too_long_for_the_time_left_does_not_keep_out_what_is_short(tmp_path: Path) -> None:
    outcomes = _conduct(tmp_path, [Measurement("kind/long", "?", 1000.0), *LIST], limit=30.0)
    assert outcomes[0].why_not == LEFT_OUT
    assert _names(tmp_path) == NAMES


@pytest.mark.usefixtures("quick")
def test_what_cannot_be_measured_here_is_named_with_the_reason_and_starts_nothing(tmp_path: Path) -> None:
    impossible = dict.fromkeys(NAMES, "needs an NVIDIA GPU")
    outcomes = conduct(LIST, impossible, PLACE, _orders(tmp_path), lambda _: None)
    assert {outcome.why_not for outcome in outcomes} == {"needs an NVIDIA GPU"}
    assert not (tmp_path / "started").exists()
