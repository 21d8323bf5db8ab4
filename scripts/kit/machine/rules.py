"""What can be wrong with a Mac, and with any machine's memory and disk: pure rules over recorded facts.

Standard library only, for Python 3.9 and later. Sizes are decimal (1 GB is 10^9 bytes) except a Mac's memory, which is
sold in binary ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.console import gigabytes
from kit.cli.findings import Finding, error, ok, skipped, warning
from kit.config.platforms import CUDA_PLATFORMS
from kit.machine.metal import working_set_bytes
from kit.machine.nvidia_rules import GB
from kit.machine.planned import planned
from kit.stacks.generation import dotted

if TYPE_CHECKING:
    from kit.machine.facts import Apple, Machine

GIB = 1024**3
OLDEST_MACOS = (14, 0)
# bitsandbytes has Metal kernels for 4-bit from here on; below, it silently computes in plain PyTorch.
METAL_KERNEL_MACOS = (26, 0)
MAC_BYTES = 32 * GIB
# Used by macOS and its own services.
_MACOS_BYTES = 4 * GB
# Installed: the Linux stack, or the image with its build cache.
_INSTALLED = {
    "h100": (15 * GB, "image and its build cache"),
    "cuda": (15 * GB, "image and its build cache"),
    "m4": (2 * GB, "environment"),
    "cpu": (7_400_000_000, "environment"),
}
_ROOM_TO_SPARE = 1.2
# Too little for the environment's small files, a log and one checkpoint.
_HOPELESS_DISK_BYTES = 2 * GB


def apple_findings(apple: Apple) -> list[Finding]:
    """Return the findings on a Mac."""
    if not apple.is_apple_silicon:
        message = f"{apple.chip} is an Intel Mac: this stack has no MPS and no wheels for it"
        return [error("apple.intel", message, "use a Mac with an M1 or later, or a Linux machine")]
    return [_python(apple), _macos(apple), _four_bit(apple), _unified_memory(apple)]


def _python(apple: Apple) -> Finding:
    if apple.is_rosetta:
        message = f"this Python is an Intel build under Rosetta, without MPS on {apple.chip}"
        return error("apple.python", message, "install an arm64 Python (brew install python@3.11) and run it natively")
    return ok("apple.python", "this Python runs natively on Apple silicon")


def _macos(apple: Apple) -> Finding:
    if apple.macos_version is None:
        return skipped("apple.macos", "macOS version unknown, not checked")
    version = dotted(apple.macos_version)
    if apple.macos_version < OLDEST_MACOS:
        message = f"macOS {version} is too old: bfloat16 on MPS and the torch wheels need macOS 14"
        return error("apple.macos", message, "update macOS in System Settings, General, Software Update")
    return ok("apple.macos", f"macOS {version} has bfloat16 on MPS")


def _four_bit(apple: Apple) -> Finding:
    version = f"macOS {dotted(apple.macos_version)}" if apple.macos_version else "an unknown macOS"
    if (apple.macos_version or ()) < METAL_KERNEL_MACOS:
        message = f"on {version} bitsandbytes computes 4-bit layers in plain PyTorch: correct, but slower"
        return warning("apple.four_bit", message, "update to macOS 26, where it uses Metal kernels")
    return ok("apple.four_bit", f"{version} runs bitsandbytes' Metal kernels for 4-bit layers")


def _unified_memory(apple: Apple) -> Finding:
    size = apple.unified_memory_bytes
    if size is None:
        return skipped("apple.memory", "unified memory unknown, not checked")
    lent = gigabytes(working_set_bytes(size))
    message = (
        f"{size / GIB:.0f} GB unified memory, of which the GPU gets about {lent}; the M4 configuration is for 32 GB"
    )
    takes = planned("m4")
    if size < takes.device_bytes + takes.loading_bytes + _MACOS_BYTES:
        return error("apple.memory", message, "use a Mac with 32 GB or more for Mistral-7B; here: make demo")
    if size < MAC_BYTES:
        fix = "make validate CONFIG=configs/training_config_m4.yaml, which compares what a run needs with this machine"
        return warning("apple.memory", message, fix)
    return ok("apple.memory", f"{size / GIB:.0f} GB unified memory")


def host_findings(machine: Machine, platform: str) -> list[Finding]:
    """Return the findings on the system, the RAM and the disk."""
    return [*_system(machine), *_memory(machine, platform), _disk(machine.disk_free_bytes, platform)]


def _system(machine: Machine) -> list[Finding]:
    if machine.system not in ("Linux", "Darwin"):
        message = f"{machine.system} is not supported; Linux and macOS are"
        return [error("machine.system", message, "on Windows, use WSL 2: wsl --install")]
    if machine.system == "Linux" and machine.cpu_model.startswith("Apple"):
        message = "this is Linux in a virtual machine or a container on a Mac, without access to Metal"
        return [warning("machine.system", message, "run natively on macOS: bash setup_m4.sh")]
    return []


def _memory(machine: Machine, platform: str) -> list[Finding]:
    total, available = machine.memory_total_bytes, machine.memory_available_bytes
    if total is None:
        return [skipped("machine.memory", "RAM unknown, not checked")]
    takes = planned(platform)
    loading = takes.loading_bytes
    # Without a GPU of its own memory the run is in the RAM too; a Mac's total is judged as unified memory.
    needed = loading if platform in CUDA_PLATFORMS else max(loading, takes.device_bytes)
    if total < needed and platform != "m4":
        message = f"{gigabytes(total)} RAM; {gigabytes(needed)} are needed while the weights load"
        return [warning("machine.memory", message, "use a machine with more RAM, or raise the container's limit")]
    if available is not None and available < needed:
        message = f"{gigabytes(available)} of {gigabytes(total)} RAM free; {gigabytes(needed)} are needed"
        return [warning("machine.memory", message, "close other programs before a run")]
    return [ok("machine.memory", f"{gigabytes(total)} RAM")]


def _disk(free: int | None, platform: str) -> Finding:
    if free is None:
        return skipped("machine.disk", "free disk space unknown, not checked")
    takes, (installed, what) = planned(platform), _INSTALLED[platform]
    parts = {what: installed, "checkpoints": takes.output_bytes}
    if platform != "cpu":
        parts = {"weights": takes.weights_bytes, **parts, "merged model": takes.weights_bytes}
    needed = round(sum(parts.values()) * _ROOM_TO_SPARE)
    if free >= needed:
        return ok("machine.disk", f"{gigabytes(free)} disk free")
    terms = " + ".join(f"{size / GB:.3g} {name}" for name, size in parts.items())
    message = f"{gigabytes(free)} disk free; {gigabytes(needed)} are needed (GB: {terms}, plus 20%)"
    fix = "free space, or move the project and HF_HOME (the weights) to a larger disk"
    return (error if free < _HOPELESS_DISK_BYTES else warning)("machine.disk", message, fix)
