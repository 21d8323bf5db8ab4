"""What a run can take on a machine, and the verdict on a peak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.machine.facts import Gpu, Machine

# Metal's working-set limit as a share of the unified memory; approximate, it differs between chips and versions.
_METAL_SHARE = 0.75
# Above the limit by more than the formulas may be wrong, it cannot run; close below it, the allocator's reserve and
# whatever else uses the device decide.
CLEARLY_OVER, TIGHT = 1.05, 0.9


@dataclass(frozen=True)
class MemoryLimit:
    """What a run can take on a platform, and in words where the number comes from."""

    size_bytes: int
    reason: str

    def verdict(self, peak_bytes: int) -> str:
        """Judge a peak: ``fits``, ``tight`` or ``does not fit``."""
        if peak_bytes > self.size_bytes * CLEARLY_OVER:
            return "does not fit"
        return "tight" if peak_bytes > self.size_bytes * TIGHT else "fits"


def memory_limit(machine: Machine, platform: str, gpu: Gpu | None) -> MemoryLimit | None:
    """Return what a run can take here, or None where the machine's facts do not tell."""
    if gpu is not None:
        return MemoryLimit(gpu.memory_free_bytes, "the GPU's memory less what is in use now")
    if platform == "m4":
        unified = machine.apple.unified_memory_bytes if machine.apple else None
        if unified is None:
            return None
        return MemoryLimit(round(unified * _METAL_SHARE), "about three quarters of the unified memory, Metal's limit")
    if machine.memory_available_bytes is None:
        return None
    return MemoryLimit(machine.memory_available_bytes, "the memory available now")
