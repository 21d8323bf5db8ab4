"""What can be wrong with a Mac, and with any machine's memory and disk: pure rules over recorded facts.

Standard library only, for Python 3.9 and later. Sizes are decimal (1 GB is 10^9 bytes) but for a Mac's memory, which
is sold in binary ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.cli.console import gigabytes
from kit.cli.findings import Finding, error, ok, skipped, warning
from kit.machine.metal import working_set_bytes
from kit.machine.nvidia_rules import GB

if TYPE_CHECKING:
    from kit.machine.facts import Apple, Machine

GIB = 1024**3
OLDEST_MACOS = (14, 0)
# bitsandbytes has Metal kernels for 4-bit from here on; below, it computes in plain PyTorch without saying so.
METAL_KERNEL_MACOS = (26, 0)
MAC_BYTES = 32 * GIB
# Below this the weights, the run and macOS itself do not fit together into the GPU's share of the memory.
SMALLEST_MAC_BYTES = 24 * GIB


@dataclass(frozen=True)
class Need:
    """What a platform's run wants from the machine around the accelerator, in bytes.

    Attributes:
        disk: With ``disk_sum`` as the arithmetic behind it.
        memory_total: RAM.
        memory_available: RAM that is free now.
    """

    disk: int
    disk_sum: str
    memory_total: int
    memory_available: int


# Disk: 14.5 GB are Mistral-7B's weights in 16 bits, 7.4 GB the installed Linux stack, 0.5 GB one checkpoint of the
# adapter with its optimizer (41.9 M x 4 bytes x 3). RAM: a whole shard of weights, up to 9.9 GB, can pass through it.
_CUDA_NEED = Need(
    disk=60 * GB,
    disk_sum="14.5 weights + 15 image and its build cache + 2 checkpoints + 14.5 merged model = 46, with room to spare",
    memory_total=16 * GB,
    memory_available=10 * GB,
)
NEEDS = {
    "h100": _CUDA_NEED,
    "cuda": _CUDA_NEED,
    "m4": Need(
        disk=40 * GB,
        disk_sum="14.5 weights + 2 environment + 2 checkpoints + 14.5 merged model = 33, with room to spare",
        memory_total=0,  # judged as unified memory
        memory_available=10 * GB,
    ),
    "cpu": Need(
        disk=10 * GB,
        disk_sum="7.4 environment, and the demo's small files",
        memory_total=4 * GB,
        memory_available=2 * GB,
    ),
}
# Not even the environment's small files, a log and one checkpoint fit into less.
_HOPELESS_DISK_BYTES = 2 * GB


def apple_findings(apple: Apple) -> list[Finding]:
    """Return everything there is to say about a Mac as a place to train on."""
    if not apple.is_apple_silicon:
        message = f"{apple.chip} is an Intel Mac: no MPS for this stack, and its macOS wheels are for Apple silicon"
        return [error("apple.intel", message, "use a Mac with an M1 or later, or a Linux machine")]
    return [_python(apple), _macos(apple), _four_bit(apple), _unified_memory(apple)]


def _python(apple: Apple) -> Finding:
    if apple.is_rosetta:
        message = f"this Python is an Intel build that Rosetta translates; on {apple.chip} it gets no MPS"
        return error("apple.python", message, "install an arm64 Python (brew install python@3.11) and run it natively")
    return ok("apple.python", "this Python runs natively on Apple silicon")


def _version(apple: Apple) -> str:
    return ".".join(str(part) for part in apple.macos_version or ())


def _macos(apple: Apple) -> Finding:
    if apple.macos_version is None:
        return skipped("apple.macos", "the version of macOS is unknown, so it was not checked")
    if apple.macos_version < OLDEST_MACOS:
        message = f"macOS {_version(apple)} is too old: bfloat16 on MPS and the torch wheels need macOS 14"
        return error("apple.macos", message, "update macOS in System Settings, General, Software Update")
    return ok("apple.macos", f"macOS {_version(apple)} has bfloat16 on MPS")


def _four_bit(apple: Apple) -> Finding:
    if apple.macos_version is None or apple.macos_version < METAL_KERNEL_MACOS:
        version = f"macOS {_version(apple)}" if apple.macos_version else "an unknown macOS"
        message = f"on {version} bitsandbytes computes 4-bit layers in plain PyTorch: correct, but slower"
        return warning("apple.four_bit", message, "update to macOS 26, where it uses Metal kernels")
    return ok("apple.four_bit", f"macOS {_version(apple)} runs bitsandbytes' Metal kernels for 4-bit layers")


def _unified_memory(apple: Apple) -> Finding:
    size = apple.unified_memory_bytes
    if size is None:
        return skipped("apple.memory", "the size of the unified memory is unknown, so it was not checked")
    lent = gigabytes(working_set_bytes(size))
    message = (
        f"{size / GIB:.0f} GB unified memory, of which Metal lends the GPU about {lent}; the M4 configuration is made"
    )
    message += " for 32 GB"
    if size < SMALLEST_MAC_BYTES:
        return error("apple.memory", message, "use a Mac with 32 GB or more for Mistral-7B; here: make demo")
    if size < MAC_BYTES:
        fix = "make validate CONFIG=configs/training_config_m4.yaml, which compares what a run needs with what is here"
        return warning("apple.memory", message, fix)
    return ok("apple.memory", f"{size / GIB:.0f} GB unified memory")


def host_findings(machine: Machine, platform: str) -> list[Finding]:
    """Return everything there is to say about the system, the RAM and the disk."""
    need = NEEDS[platform]
    return [*_system(machine), *_memory(machine, need), _disk(machine.disk_free_bytes, need)]


def _system(machine: Machine) -> list[Finding]:
    if machine.system not in ("Linux", "Darwin"):
        message = f"{machine.system} is not supported; Linux and macOS are"
        return [error("machine.system", message, "on Windows, use WSL 2: wsl --install")]
    if machine.system == "Linux" and machine.cpu_model.startswith("Apple"):
        message = "this is Linux in a virtual machine or a container on a Mac: Metal cannot be reached from here"
        return [warning("machine.system", message, "run natively on macOS: bash setup_m4.sh")]
    return []


def _memory(machine: Machine, need: Need) -> list[Finding]:
    total, available = machine.memory_total_bytes, machine.memory_available_bytes
    if total is None:
        return [skipped("machine.memory", "the size of the RAM is unknown, so it was not checked")]
    if total < need.memory_total:
        message = f"{gigabytes(total)} RAM; {gigabytes(need.memory_total)} are wanted, while the weights load"
        return [warning("machine.memory", message, "use a machine with more RAM, or raise the container's limit")]
    if available is not None and available < need.memory_available:
        message = (
            f"{gigabytes(available)} of {gigabytes(total)} RAM are free; {gigabytes(need.memory_available)} are wanted"
        )
        return [warning("machine.memory", message, "close other programs before a run")]
    return [ok("machine.memory", f"{gigabytes(total)} RAM")]


def _disk(free: int | None, need: Need) -> Finding:
    if free is None:
        return skipped("machine.disk", "the free disk space is unknown, so it was not checked")
    if free >= need.disk:
        return ok("machine.disk", f"{gigabytes(free)} disk free")
    message = f"{gigabytes(free)} disk free; {gigabytes(need.disk)} are wanted (GB: {need.disk_sum})"
    fix = "free space, or put the project and HF_HOME, where the weights are kept, on a larger disk"
    return (error if free < _HOPELESS_DISK_BYTES else warning)("machine.disk", message, fix)
