"""Detect this machine's facts; ``kit.machine.platforms`` judges them.

Standard library only, for Python 3.9 and later; uses nvidia-ml-py and psutil if installed, never torch. What is unknown
is None, or NVIDIA's ``problem``: nothing here raises or hangs.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import platform
import re
import shutil
from pathlib import Path

from kit.cli.interpreter import PROJECT_ROOT
from kit.cli.screen import one_line
from kit.machine import metal
from kit.machine.facts import Apple, Machine, Nvidia
from kit.machine.nvidia import probe_nvidia
from kit.machine.tools import ask

TIMEOUT_S = 5.0
PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
# Apple's implementer number at Arm: an arm64 Linux on a Mac shows it.
_APPLE_IMPLEMENTER = "0x61"


def probe() -> Machine:
    """Return this machine's facts as they are now."""
    system = platform.system()
    apple = _apple() if system == "Darwin" else None
    total, available = usable_memory()
    return Machine(
        system=system,
        arch=platform.machine(),
        python_version=platform.python_version(),
        cpu_model=apple.chip if apple else _cpu_model(),
        cpu_count=usable_cores(),
        memory_total_bytes=total,
        memory_available_bytes=available,
        disk_free_bytes=disk_free_bytes(PROJECT_ROOT),
        in_container=_in_container(system),
        # There is no NVIDIA driver for macOS.
        nvidia=Nvidia() if system == "Darwin" else probe_nvidia(),
        apple=apple,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpu_model() -> str:
    text = _read(PROC / "cpuinfo")
    if re.search(rf"^CPU implementer\s*:\s*{_APPLE_IMPLEMENTER}", text, re.MULTILINE):
        return "Apple silicon (Linux guest)"
    match = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return one_line(match[1].strip()) if match else platform.processor() or "unknown"


def usable_cores() -> int:
    """Count the CPUs this process may use, by affinity and the container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [count]
    for folder in _cgroup_folders("cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        quota = quota.strip() or _read(folder / "cpu.cfs_quota_us").strip()
        period = period.strip() or _read(folder / "cpu.cfs_period_us").strip()
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            limits.append(max(1, math.ceil(int(quota) / int(period))))
    return min(limits)


def usable_memory() -> tuple[int | None, int | None]:
    """Return total and available bytes, by the container's limit if it is lower than the machine's."""
    machine, available = _machine_memory(platform.system())
    total = machine
    for folder in _cgroup_folders("memory"):
        text = _read(folder / "memory.max").strip() or _read(folder / "memory.limit_in_bytes").strip()
        # Version 1 writes "no limit" as a number larger than any machine.
        if machine is None or total is None or not text.isdecimal() or int(text) >= machine:
            continue
        total = min(total, int(text))
        used = (_read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")).strip()
        if used.isdecimal():
            # File pages count as used, but are freed on demand.
            cached = re.search(r"^(?:total_)?inactive_file (\d+)$", _read(folder / "memory.stat"), re.MULTILINE)
            room = max(0, int(text) - int(used) + (int(cached[1]) if cached else 0))
            available = room if available is None else min(available, room)
    return total, available


def _machine_memory(system: str) -> tuple[int | None, int | None]:
    try:
        memory = importlib.import_module("psutil").virtual_memory()
        return int(memory.total), int(memory.available)
    except Exception:  # noqa: BLE001 - not installed, or built for another system
        return _memory_without_psutil(system)


def _memory_without_psutil(system: str) -> tuple[int | None, int | None]:
    if system == "Darwin":
        return _number(_sysctl("hw.memsize")), _available_on_macos()
    kibibytes = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", _read(PROC / "meminfo"), re.MULTILINE))
    total, available = (
        int(kibibytes[name]) * 1024 if name in kibibytes else None for name in ("MemTotal", "MemAvailable")
    )
    if total is None and hasattr(os, "sysconf"):
        try:
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (OSError, ValueError):
            return None, available
    return total, available


def _available_on_macos() -> int | None:
    """Count free and inactive pages, as psutil does on macOS."""
    text = ask(["vm_stat"], TIMEOUT_S).output
    page = re.search(r"page size of (\d+) bytes", text)
    counts = re.findall(r"^Pages (?:free|inactive):\s+(\d+)\.", text, re.MULTILINE)
    return int(page[1]) * sum(int(count) for count in counts) if page and counts else None


def _cgroup_folders(controller: str) -> list[Path]:
    """List the cgroup folders that can limit this process, innermost first: version 2, then version 1."""
    folders: list[Path] = []
    for line in _read(PROC / "self" / "cgroup").splitlines():
        number, names, path = [*line.split(":", 2), "", ""][:3]
        unified = number == "0" and not names
        if not unified and controller not in names.split(","):
            continue
        root = CGROUP if unified else CGROUP / controller
        inner = root / path.strip("/")
        # In a container the path may be the host's while only the root is mounted: try both.
        folders += [inner, *(parent for parent in inner.parents if parent == root or root in parent.parents)]
    return folders


def disk_free_bytes(path: Path) -> int | None:
    """Return the free space of the disk that a path is, or will be, on."""
    for place in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(place).free
    return None


def _in_container(system: str) -> bool:
    if system != "Linux":
        return False
    named = bool(os.environ.get("container") or os.environ.get("KUBERNETES_SERVICE_HOST"))  # noqa: SIM112 - podman's own
    mentioned = re.search(r"docker|kubepods|containerd|libpod|lxc", _read(PROC / "1" / "cgroup"))
    return named or mentioned is not None or any(mark.exists() for mark in _CONTAINER_MARKS)


def _apple() -> Apple:
    watermark = os.environ.get(metal.HIGH)
    arm = _sysctl("hw.optional.arm64") == "1" or platform.machine() == "arm64"
    return Apple(
        chip=_sysctl("machdep.cpu.brand_string") or platform.processor() or "unknown",
        macos_version=_macos_version(),
        is_apple_silicon=arm,
        is_rosetta=_sysctl("sysctl.proc_translated") == "1",
        unified_memory_bytes=_number(_sysctl("hw.memsize")),
        gpu_cores=_gpu_cores() if arm else None,
        mps_high_watermark=None if watermark is None else one_line(watermark),
    )


def _macos_version() -> tuple[int, int] | None:
    """Ask sw_vers: the system reports an older version to an old build of Python."""
    text = ask(["sw_vers", "-productVersion"], TIMEOUT_S).output.strip() or platform.mac_ver()[0]
    match = re.match(r"(\d+)(?:\.(\d+))?", text)
    return (int(match[1]), int(match[2] or 0)) if match else None


def _gpu_cores() -> int | None:
    text = ask(["system_profiler", "SPDisplaysDataType", "-json"], TIMEOUT_S).output
    match = re.search(r'"sppci_cores"\s*:\s*"?(\d+)', text)
    return int(match[1]) if match else None


def _sysctl(name: str) -> str:
    return one_line(ask(["sysctl", "-n", name], TIMEOUT_S).output.strip())


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
