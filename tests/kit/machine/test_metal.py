"""Metal's limit is one number: for the plan, the rehearsal, the run's own settings and the Makefile."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.machine import facts as machines
from kit.machine.metal import HIGH, LOW, allowed_bytes, stay_within_working_set, working_set_bytes
from kit.plan.limits import MemoryLimit, memory_limit

if TYPE_CHECKING:
    from kit.machine.facts import Machine

GIB = 1024**3


def mac(name: str = "m4_32gb", *, available: int | None = None, watermark: str | None = None) -> Machine:
    machine = machines.read(PROJECT_ROOT / "tests/fixtures/machines" / f"{name}.json")
    assert machine.apple is not None
    apple = replace(machine.apple, mps_high_watermark=watermark)
    return replace(machine, memory_available_bytes=available, apple=apple)


def limit(machine: Machine) -> MemoryLimit:
    found = memory_limit(machine, "m4", None)
    assert found is not None
    return found


@pytest.mark.parametrize(("gib", "lent"), [(16, 16 * 2 / 3), (32, 32 * 2 / 3), (36, 27), (64, 48)])
def test_metal_lends_two_thirds_and_three_quarters_from_36_gb_on(gib: int, lent: float) -> None:
    assert working_set_bytes(gib * GIB) == pytest.approx(lent * GIB, abs=1)


def test_what_a_32_gb_mac_refuses_does_not_fit_and_what_comes_near_it_is_tight() -> None:
    found = limit(mac())
    assert found.size_bytes == pytest.approx(22.9e9, rel=0.001)
    sizes = (20.6e9, 20.7e9, 22.9e9, 22.92e9, 27e9)
    assert [found.verdict(int(size)) for size in sizes] == ["fits", "tight", "tight", *["does not fit"] * 2]


def test_memory_in_use_is_taken_off_as_on_cuda() -> None:
    assert limit(mac(available=8 * 10**9)).size_bytes == 8 * 10**9
    assert limit(mac(available=30 * 10**9)).size_bytes == working_set_bytes(32 * GIB)


@pytest.mark.parametrize(
    ("watermark", "allowed"),
    [(None, 100), ("1.0", 100), ("0.8", 80), ("1.7", 150), ("0.0", 150), ("nonsense", 100)],
)
def test_a_persons_own_watermark_counts_up_to_the_memory_there_is(watermark: str | None, allowed: int) -> None:
    assert allowed_bytes(100, watermark, 150) == allowed
    unified = 32 * GIB
    expected = allowed_bytes(working_set_bytes(unified), watermark, unified)
    assert limit(mac(watermark=watermark)).size_bytes == expected


def test_a_run_keeps_pytorch_within_what_was_planned_with() -> None:
    environment: dict[str, str] = {}
    stay_within_working_set(environment)
    assert environment == {HIGH: "1.0", LOW: "0.9"}
    # PyTorch rejects a low mark above the high one; make train-m4 sets it to 0.9 if the user sets only the high one.
    for own in ({HIGH: "0.8"}, {HIGH: "0.8", LOW: "0.9"}):
        stay_within_working_set(own)
        assert own == {HIGH: "0.8", LOW: "0.8"}
    makefile = (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8")
    assert dict(re.findall(r"(PYTORCH_MPS_\w+)=\"\$\$\{\1:-([0-9.]+)\}", makefile)) == environment


def test_the_rehearsal_has_the_room_that_the_plan_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="needs the libraries: make setup")
    from kit.train import rehearsal

    unified = 32 * GIB
    mps = SimpleNamespace(driver_allocated_memory=lambda: 10**9, recommended_max_memory=lambda: unified * 2 // 3)
    monkeypatch.setattr(torch, "mps", mps)
    monkeypatch.delenv(HIGH, raising=False)
    for available in (30 * 10**9, 8 * 10**9):
        monkeypatch.setattr(rehearsal, "usable_memory", lambda now=available: (unified, now - 10**9))
        assert rehearsal.room_bytes("m4") == limit(mac(available=available)).size_bytes
