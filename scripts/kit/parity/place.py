"""Where a result was measured, and where it is kept. Imports no torch."""

from __future__ import annotations

import platform as this_platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kit.config.platforms import CUDA_PLATFORMS
from kit.machine.cuda_order import chosen_of
from kit.run_folder.provenance import describe_code

if TYPE_CHECKING:
    from pathlib import Path

    from kit.machine.facts import Machine
    from kit.stacks.stack import Stack


def describe_place(machine: Machine, platform: str, stack: Stack) -> dict[str, Any]:
    """Name the device, the stack, its versions, the code and the date."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform,
        "device": device_name(machine, platform),
        "system": f"{machine.system} {machine.arch}",
        "stack": stack.name,
        "python": this_platform.python_version(),
        "versions": stack.versions,
        **describe_code(),
    }


def device_name(machine: Machine, platform: str) -> str:
    """Return the name of what trains: the GPU, the chip or the processor."""
    gpu = chosen_of(machine.nvidia)
    if platform in CUDA_PLATFORMS and gpu:
        return gpu.name
    return machine.cpu_model or "an unnamed processor"


def result_file(outputs: Path, stack: str, platform: str, attention: str = "auto") -> Path:
    """Return where the result of a stack on a platform is kept; one with an attention of its own stands beside it."""
    return outputs / f"parity-{stack}-{platform}{'' if attention == 'auto' else f'-{attention}'}.json"
