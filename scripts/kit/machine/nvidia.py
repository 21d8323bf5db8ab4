"""Find this machine's NVIDIA GPUs: through NVML, else nvidia-smi, else traces in /proc and /sys.

Facts only, no judgement. Standard library only, for Python 3.9 and later; nothing here raises or hangs.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.screen import one_line
from kit.machine.cuda_order import ORDER, VISIBLE, drivers_number
from kit.machine.facts import Nvidia
from kit.machine.nvidia_smi import ask_nvidia_smi
from kit.machine.nvml import Found, Report, ask_nvml

if TYPE_CHECKING:
    from collections.abc import Sequence

PROC_DRIVER = Path("/proc/driver/nvidia/version")
PCI_DEVICES = Path("/sys/bus/pci/devices")
_NVIDIA_PCI_VENDOR = "0x10de"
_PCI_DISPLAY_CLASS = "0x03"
_WHOLE_UUID = re.compile(r"(GPU|MIG)-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def probe_nvidia() -> Nvidia:
    """Return the driver's facts; ``problem`` says why there are none although there is NVIDIA hardware."""
    return probe_with_names()[0]


def probe_with_names() -> tuple[Nvidia, tuple[str, ...]]:
    """Return the same with each GPU's UUID, empty if unknown; UUIDs identify a machine, so facts do not hold them."""
    report = ask_nvml()
    # A hung driver would hang nvidia-smi as well; any other problem of NVML's may not affect it.
    if report is None or not (report.found or report.timed_out):
        report = ask_nvidia_smi() or report or Report(Nvidia(problem=_traces()))
    chosen, order = os.environ.get(VISIBLE), os.environ.get(ORDER)
    nvidia = replace(
        report.nvidia,
        gpus=tuple(item.gpu for item in report.found),
        cuda_visible_devices=None if chosen is None else one_line(_WHOLE_UUID.sub(r"\1-…", chosen)),
        visible=None if chosen is None else _visible(chosen, order, report.found),
        cuda_device_order=None if order is None else one_line(order),
    )
    names = tuple(item.uuid if item.uuid.startswith(("GPU-", "MIG-")) else "" for item in report.found)
    return nvidia, names


def _visible(chosen: str, order: str | None, found: Sequence[Found]) -> tuple[int, ...]:
    """Resolve CUDA_VISIBLE_DEVICES as CUDA does: in its order, up to the first entry that names no GPU."""
    positions: list[int] = []
    gpus = [item.gpu for item in found]
    for entry in (part.strip() for part in chosen.split(",")):
        if entry.isdecimal():
            number = drivers_number(gpus, order, int(entry))
            matches = [position for position, gpu in enumerate(gpus) if gpu.index == number]
        else:
            matches = [position for position, item in enumerate(found) if entry and item.uuid.startswith(entry)]
            # An ambiguous prefix names no GPU.
            matches = matches if len(matches) == 1 else []
        if not matches:
            break
        # A number names a whole GPU; if it has slices, CUDA takes the first.
        if matches[0] not in positions:
            positions.append(matches[0])
    return tuple(positions)


def _traces() -> str:
    """Say what NVIDIA hardware or driver there is without NVML and nvidia-smi; empty for none."""
    if PROC_DRIVER.exists():
        return "the NVIDIA driver is loaded, but its NVML library and nvidia-smi are missing"
    try:
        for device in PCI_DEVICES.iterdir():
            is_nvidia = (device / "vendor").read_text(encoding="ascii").strip() == _NVIDIA_PCI_VENDOR
            if is_nvidia and (device / "class").read_text(encoding="ascii").startswith(_PCI_DISPLAY_CLASS):
                return "an NVIDIA GPU is on the PCI bus, but its driver is not available"
    except (OSError, ValueError):
        return ""
    return ""
