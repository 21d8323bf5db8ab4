"""What a run can take on a machine, and the verdict on a peak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.machine.metal import allowed_bytes, working_set_bytes

if TYPE_CHECKING:
    from kit.machine.facts import Gpu, Machine

# Above the limit by more than the formulas may be wrong, it cannot run; close below it, the allocator's reserve and
# whatever else uses the device decide.
CLEARLY_OVER, TIGHT = 1.05, 0.9


@dataclass(frozen=True)
class MemoryLimit:
    """What a run can take on a platform.

    Attributes:
        reason: In words where the number comes from.
        clearly_over: How many times as much surely does not fit.
    """

    size_bytes: int
    reason: str
    clearly_over: float = CLEARLY_OVER

    def verdict(self, peak_bytes: int) -> str:
        """Judge a peak: ``fits``, ``tight`` or ``does not fit``."""
        if peak_bytes > self.size_bytes * self.clearly_over:
            return "does not fit"
        return "tight" if peak_bytes > self.size_bytes * TIGHT else "fits"


def memory_limit(machine: Machine, platform: str, gpu: Gpu | None) -> MemoryLimit | None:
    """Return what a run can take here, or None where the machine's facts do not tell."""
    if gpu is not None:
        return MemoryLimit(gpu.memory_free_bytes, "the GPU's memory minus what is in use now")
    available = machine.memory_available_bytes
    now = None if available is None else MemoryLimit(available, "the memory available now")
    if platform != "m4":
        return now
    apple = machine.apple
    if apple is None or apple.unified_memory_bytes is None:
        return None
    unified = apple.unified_memory_bytes
    # PyTorch refuses at this byte, whatever is still free: nothing above it fits.
    allowed = allowed_bytes(working_set_bytes(unified), apple.mps_high_watermark, unified)
    metal = MemoryLimit(allowed, "PyTorch's limit within Metal's share of the unified memory", clearly_over=1.0)
    return now if now and now.size_bytes < metal.size_bytes else metal
