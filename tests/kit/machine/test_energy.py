"""Energy is the driver's counter of the GPU the run uses, or unknown."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from types import ModuleType

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.machine import energy
from kit.machine import facts as machines
from kit.machine.energy import EnergyMeter, gpu_index, joules_used
from kit.machine.facts import Gpu, Machine, Nvidia

H100 = machines.read(PROJECT_ROOT / "tests/fixtures/machines/h100_80gb.json")


def _with_gpus(*gpus: Gpu, visible: tuple[int, ...] | None = None) -> Machine:
    return replace(H100, nvidia=Nvidia(gpus=gpus, visible=visible))


def test_joules_are_counted_from_the_meters_start() -> None:
    readings = iter([1000.0, 1000.5, 1250.0004])
    meter = EnergyMeter(H100, "h100", lambda _index: next(readings))
    assert (meter.read(), meter.read()) == (0.5, 250.0)


@pytest.mark.parametrize("platform", ["cpu", "m4"])
def test_nobody_is_asked_where_nvidia_does_not_compute(platform: str) -> None:
    def asked(_index: int) -> float:
        raise AssertionError

    assert EnergyMeter(H100, platform, asked).read() is None


def test_a_driver_that_was_loaded_anew_makes_it_unknown() -> None:
    readings = iter([1000.0, 3.0])
    assert EnergyMeter(H100, "h100", lambda _index: next(readings)).read() is None


def test_a_driver_that_hangs_is_given_up_on_and_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "TIMEOUT_S", 0.05)
    released, asked = threading.Event(), []

    def counter(index: int) -> float:
        asked.append(index)
        if len(asked) > 1:
            released.wait()
        return 1.0

    meter = EnergyMeter(H100, "h100", counter)
    assert (meter.read(), meter.read(), len(asked)) == (None, None, 2)
    released.set()


def test_the_gpu_is_the_first_the_run_sees() -> None:
    first, second = (Gpu(index, "NVIDIA H100", 80 * 10**9) for index in (0, 1))
    assert gpu_index(_with_gpus(first, second)) == 0
    assert gpu_index(_with_gpus(first, second, visible=(1, 0))) == 1
    assert gpu_index(_with_gpus(first, visible=())) is None


def test_a_mig_slice_has_no_counter_of_its_own() -> None:
    assert gpu_index(_with_gpus(Gpu(0, "MIG 3g.40gb", 40 * 10**9, mig_enabled=True, is_mig_slice=True))) is None


def test_of_two_kinds_it_is_the_one_that_is_judged() -> None:
    machine = _with_gpus(Gpu(0, "NVIDIA T4", 16 * 10**9), Gpu(1, "NVIDIA H100", 80 * 10**9))
    assert gpu_index(machine) == 1
    in_drivers_order = replace(machine, nvidia=replace(machine.nvidia, cuda_device_order="PCI_BUS_ID"))
    assert gpu_index(in_drivers_order) == 0


def test_nvml_counts_in_millijoules(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    nvml = ModuleType("pynvml")
    nvml.nvmlInit = lambda: told.append("init")  # type: ignore[attr-defined]
    nvml.nvmlShutdown = lambda: told.append("shutdown")  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetHandleByIndex = lambda index: ("gpu", index)  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetTotalEnergyConsumption = {("gpu", 3): 12_345_678}.__getitem__  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert joules_used(3) == 12_345.678
    assert joules_used(4) is None  # raises inside
    assert told == ["init", "shutdown"] * 2


def test_without_a_driver_it_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert joules_used(0) is None
