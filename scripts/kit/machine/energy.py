"""The energy a run's NVIDIA GPU used, from the driver's counter.

It counts everything since the driver was loaded, other programs and idle time included (NVML,
``nvmlDeviceGetTotalEnergyConsumption``: millijoules, Volta and later). Nothing here raises or hangs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.config.platforms import CUDA_PLATFORMS
from kit.machine.cuda_order import chosen_of
from kit.machine.tools import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.machine.facts import Machine

TIMEOUT_S = 5.0


class EnergyMeter:
    """Counts the joules of one GPU from its creation on."""

    def __init__(self, machine: Machine, platform: str, counter: Callable[[int], float | None] | None = None) -> None:
        """Begin to count; ``counter`` reads the joules of a GPU by the driver's number, by default from NVML."""
        self._counter = counter or joules_used
        self._index = gpu_index(machine) if platform in CUDA_PLATFORMS else None
        self._at_start = self._ask()

    def read(self) -> float | None:
        """Return the joules used since the start; None if unknown."""
        if self._at_start is None:
            return None
        now = self._ask()
        # Less than before: the driver was reloaded.
        return None if now is None or now < self._at_start else round(now - self._at_start, 3)

    def _ask(self) -> float | None:
        if self._index is None:
            return None
        index, counter = self._index, self._counter
        answers = within(TIMEOUT_S, lambda: counter(index))
        if not answers:
            self._index = None  # no second time-out
            return None
        return answers[0]


def gpu_index(machine: Machine) -> int | None:
    """Return the driver's number of the GPU a run uses; None for a MIG slice, which has no counter."""
    gpu = chosen_of(machine.nvidia)
    return None if gpu is None or gpu.mig_enabled else gpu.index


def joules_used(index: int) -> float | None:
    """Ask NVML for a GPU's joules since the driver was loaded; None if unknown."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # noqa: BLE001 - no bindings, no driver or an old GPU must not stop a run
        return None
