"""Find the NVIDIA GPUs of this machine: through NVML, else through nvidia-smi, else by what the system shows.

Facts only, no judgement. Standard library only, for Python 3.9 and later; nothing here raises or hangs.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kit.machine.facts import Nvidia
from kit.machine.nvidia_smi import ask_nvidia_smi
from kit.machine.nvml import Found, Report, ask_nvml
from kit.machine.tools import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

PROC_DRIVER = Path("/proc/driver/nvidia/version")
PCI_DEVICES = Path("/sys/bus/pci/devices")
_NVIDIA_PCI_VENDOR = "0x10de"
_PCI_DISPLAY_CLASS = "0x03"


def probe_nvidia() -> Nvidia:
    """Return what the driver says; ``problem`` says why it does not, where something of NVIDIA's is there."""
    report = ask_nvml()
    # A wedged driver would hang nvidia-smi as well; any other trouble of NVML's may not be the tool's.
    if report is None or not (report.found or report.timed_out):
        report = ask_nvidia_smi() or report or Report(Nvidia(problem=_traces()))
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return replace(
        report.nvidia,
        gpus=tuple(item.gpu for item in report.found),
        cuda_visible_devices=None if chosen is None else printable(chosen),
        visible=None if chosen is None else _visible(chosen, report.found),
    )


def _visible(chosen: str, found: Sequence[Found]) -> tuple[int, ...]:
    """Resolve CUDA_VISIBLE_DEVICES as CUDA does: in its order, up to the first entry that names no GPU."""
    positions: list[int] = []
    for entry in (part.strip() for part in chosen.split(",")):
        matches = [
            position
            for position, item in enumerate(found)
            if (item.gpu.index == int(entry) if entry.isdecimal() else bool(entry) and item.uuid.startswith(entry))
        ]
        if not matches:
            break
        # A number names a whole GPU; of one cut into slices CUDA takes the first.
        if matches[0] not in positions:
            positions.append(matches[0])
    return tuple(positions)


def _traces() -> str:
    """Say what of NVIDIA's is here although neither NVML nor nvidia-smi is; empty where nothing is."""
    if PROC_DRIVER.exists():
        return "the NVIDIA driver is loaded, but neither its NVML library nor nvidia-smi is there"
    try:
        for device in PCI_DEVICES.iterdir():
            is_nvidia = (device / "vendor").read_text(encoding="ascii").strip() == _NVIDIA_PCI_VENDOR
            if is_nvidia and (device / "class").read_text(encoding="ascii").startswith(_PCI_DISPLAY_CLASS):
                return "an NVIDIA GPU is on the PCI bus, but no driver for it can be reached"
    except (OSError, ValueError):
        return ""
    return ""
