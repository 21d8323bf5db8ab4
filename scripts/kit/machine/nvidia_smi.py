"""Ask NVIDIA's driver for its GPUs through nvidia-smi.

Facts only, no judgement. Standard library only, for Python 3.9 and later; nothing here raises or hangs.
"""

from __future__ import annotations

import re
from dataclasses import replace

from kit.cli.screen import one_line
from kit.machine.facts import Gpu, Nvidia
from kit.machine.nvml import TIMEOUT_S, Found, Report
from kit.machine.tools import ToolOutput, ask

MIB = 1024**2
_FIELDS = ("index", "uuid", "name", "memory.total", "memory.used", "driver_version")
# Drivers before 510 reject a whole query with compute_cap.
_NEWER_FIELDS = ("compute_cap", "mig.mode.current")
_FREE = "memory.free"


def ask_nvidia_smi() -> Report | None:
    """Ask nvidia-smi; None if it is not installed."""
    known: tuple[str, ...] = (*_FIELDS, *_NEWER_FIELDS, _FREE)
    answer = _query(known)
    if not answer.found:
        return None
    if "valid field" in answer.problem:
        known = (*_FIELDS, _FREE)
        answer = _query(known)
    if answer.problem:
        return Report(Nvidia(source="nvidia-smi", problem=answer.problem), timed_out=answer.timed_out)
    found: list[Found] = []
    driver, problem = None, ""
    for line in answer.output.splitlines():
        # A short row, which zip silently cuts, is caught below.
        row = dict(zip(known, (one_line(part.strip()) for part in line.split(","))))
        item = _gpu_of(row)
        if item is not None:
            found.append(item)
            driver = row["driver_version"]
        elif line.strip():
            problem = problem or f"nvidia-smi printed an unexpected line: {line.strip()[:80]!r}"
    if any(item.gpu.mig_enabled for item in found):
        found = _with_slices(found)
    cuda = _cuda_of(ask(["nvidia-smi"], TIMEOUT_S).output) if found else None
    return Report(
        Nvidia(driver_version=driver, cuda_driver_version=cuda, source="nvidia-smi", problem=problem), tuple(found)
    )


def _query(known: tuple[str, ...]) -> ToolOutput:
    return ask(["nvidia-smi", f"--query-gpu={','.join(known)}", "--format=csv,noheader,nounits"], TIMEOUT_S)


def _gpu_of(row: dict[str, str]) -> Found | None:
    """Read one line of nvidia-smi's table; None if it is something else."""
    index, total, used = (row.get(name, "") for name in ("index", "memory.total", "memory.used"))
    if not (index.isdecimal() and total.isdecimal() and row.get("driver_version")):
        return None
    free = row.get(_FREE, "")
    is_told_apart = used.isdecimal() and free.isdecimal()
    capability = re.fullmatch(r"(\d+)\.(\d+)", row.get("compute_cap", ""))
    return Found(
        Gpu(
            index=int(index),
            name=row["name"],
            memory_total_bytes=int(total) * MIB,
            memory_used_bytes=int(used) * MIB if used.isdecimal() else None,
            compute_capability=(int(capability[1]), int(capability[2])) if capability else None,
            mig_enabled=row.get("mig.mode.current") == "Enabled",
            memory_reserved_bytes=max(0, int(total) - int(used) - int(free)) * MIB if is_told_apart else None,
        ),
        row["uuid"],
    )


def _with_slices(found: list[Found]) -> list[Found]:
    """Replace GPUs by the MIG slices that ``nvidia-smi -L`` lists for them.

    The list names a slice's profile, not its memory: ``MIG 1g.10gb`` counts as 10 GB.
    """
    slices: dict[int, list[Found]] = {}
    index = -1
    for line in ask(["nvidia-smi", "-L"], TIMEOUT_S).output.splitlines():
        whole = re.match(r"GPU (\d+):", line)
        piece = re.match(r"\s+MIG (\S*?\.(\d+)gb\S*)\s.*UUID: (MIG-[^)\s]+)", line)
        if whole:
            index = int(whole[1])
        elif piece:
            parent = next((item.gpu for item in found if item.gpu.index == index), None)
            if parent is not None:
                cut = replace(
                    parent,
                    name=f"{parent.name} MIG {piece[1]}",
                    memory_total_bytes=int(piece[2]) * 10**9,
                    memory_used_bytes=None,
                    is_mig_slice=True,
                    memory_reserved_bytes=None,
                )
                slices.setdefault(index, []).append(Found(cut, piece[3]))
    return [piece for item in found for piece in slices.get(item.gpu.index, [item])]


def _cuda_of(header: str) -> tuple[int, int] | None:
    match = re.search(r"CUDA (?:\w+ )?Version:\s*(\d+)\.(\d+)", header)
    return (int(match[1]), int(match[2])) if match else None
