"""What can be wrong with a machine's NVIDIA side: pure rules over recorded facts.

Standard library only, for Python 3.9 and later. Sizes are decimal: 1 GB is 10^9 bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.console import gigabytes
from kit.cli.findings import Finding, error, ok, skipped, warning
from kit.machine.cuda_order import VISIBLE, counts_as_the_driver, how_to_choose
from kit.machine.planned import planned
from kit.stacks.generation import version_tuple
from kit.stacks.registry import GENERATIONS

if TYPE_CHECKING:
    from kit.machine.facts import Gpu, Nvidia

GB = 10**9
# The H100 configuration's target: what an 80 GB card has left after the driver's share.
H100_BYTES = 70 * GB
# A display or a monitoring tool uses up to some hundred MB of an idle GPU.
_IDLE_BYTES = GB
OLDEST_BF16 = (8, 0)
# Minor-version compatibility and CUDA 12.1's own driver on Linux:
# https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/ (tables 2 and 3)
OLDEST_DRIVER = (525, 60, 13)
NATIVE_DRIVER = (530, 30, 2)
FLOAT16_OVERRIDES = (
    "training.bf16=false training.fp16=true model.torch_dtype=float16 quantization.bnb_4bit_compute_dtype=float16"
)


def nvidia_findings(nvidia: Nvidia, gpu: Gpu | None, platform: str) -> list[Finding]:
    """Return the findings on the driver and on ``gpu``, the one a run uses."""
    findings = _problem(nvidia)
    if not nvidia.gpus:
        return findings
    findings.append(_driver(nvidia.driver_version))
    if gpu is None:
        return findings + _unusable(nvidia)
    where = place(gpu)
    return [
        *findings,
        *_several(nvidia, gpu, where),
        _memory(gpu, where),
        _busy(nvidia, gpu, platform, where),
        _bf16(gpu, where),
        *_stacks(gpu, where),
    ]


def place(gpu: Gpu) -> str:
    """Return ``GPU 0``, or ``GPU 0, MIG 1g.10gb``."""
    _, cut, profile = gpu.name.partition(" MIG ")
    return f"GPU {gpu.index}{', MIG ' + profile if cut else ''}"


def _problem(nvidia: Nvidia) -> list[Finding]:
    problem = nvidia.problem
    if not problem:
        return []
    if nvidia.gpus:
        return [warning("nvidia.problem", problem, "nvidia-smi -q, and dmesg | grep -i xid for a GPU that was lost")]
    if nvidia.source == "none":
        return [
            warning(
                "nvidia.no_driver",
                problem,
                "install NVIDIA's driver, version 530.30.02 or later; in a container, start it with --gpus all and "
                "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
            )
        ]
    if "No devices were found" in problem:
        # Cloud images have the driver on machines without a GPU too.
        return [warning("nvidia.no_device", "NVIDIA's driver finds no GPU", "choose a machine with a GPU")]
    if "did not answer" in problem:
        fix = "the driver hangs: look for Xid errors with dmesg | grep -i xid, then restart the machine"
    elif "mismatch" in problem:
        fix = "the driver was updated under a running kernel module: restart the machine"
    elif "libnvidia-ml" in problem:
        fix = "start the container with --gpus all and NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    else:
        fix = "run nvidia-smi yourself; if it fails too, reinstall NVIDIA's driver (530.30.02 or later) and restart"
    return [error("nvidia.no_answer", problem, fix)]


def _driver(version: str | None) -> Finding:
    if not version:
        return skipped("nvidia.driver", "driver version unknown, not checked")
    if version_tuple(version) < OLDEST_DRIVER:
        return error(
            "nvidia.driver",
            f"driver {version} is too old for CUDA 12.1: 525.60.13 or later is needed",
            "update NVIDIA's driver to 530.30.02 or later (Ubuntu: sudo apt install nvidia-driver-535), then restart",
        )
    if version_tuple(version) < NATIVE_DRIVER:
        return ok("nvidia.driver", f"driver {version} runs CUDA 12.1 through minor-version compatibility")
    return ok("nvidia.driver", f"driver {version} runs CUDA 12.1")


def _unusable(nvidia: Nvidia) -> list[Finding]:
    if not nvidia.visible_gpus:
        return [
            warning(
                "gpu.hidden",
                f"CUDA_VISIBLE_DEVICES={nvidia.cuda_visible_devices!r} hides {_count(nvidia.gpus)} from every run",
                "unset CUDA_VISIBLE_DEVICES",
            )
        ]
    return [
        error(
            "gpu.mig",
            "MIG mode is on without a slice, so CUDA sees no GPU",
            "sudo nvidia-smi -mig 0 for the whole GPU, or sudo nvidia-smi mig -cgi 0 -C for one slice of all of it",
            place(nvidia.visible_gpus[0]),
        )
    ]


def _count(gpus: tuple[Gpu, ...]) -> str:
    return "the one GPU" if len(gpus) == 1 else f"all {len(gpus)} GPUs"


def _several(nvidia: Nvidia, gpu: Gpu, where: str) -> list[Finding]:
    findings = []
    visible = nvidia.visible_gpus
    if nvidia.visible is not None:
        message = f"CUDA_VISIBLE_DEVICES={nvidia.cuda_visible_devices} leaves {len(visible)} of {len(nvidia.gpus)} GPUs"
        findings.append(ok("gpu.visible", message))
    if _is_a_guess(nvidia):
        message = (
            f"the GPUs differ, and CUDA numbers them by speed, unlike nvidia-smi: "
            f"{_asked(nvidia)} is probably {gpu.name}, which a run uses"
        )
        fix = f"to use nvidia-smi's numbers, put {how_to_choose(nvidia, gpu)} before the command"
        findings.append(warning("gpu.mixed", message, fix, where))
    if len(visible) < 2:  # noqa: PLR2004 - one needs no choice
        return findings
    others = ", ".join(place(other) for other in visible if other is not gpu)
    unit = "GPUs or slices" if any(other.is_mig_slice for other in visible) else "GPUs"
    another = next(other for other in visible if other is not gpu)
    message = f"{len(visible)} {unit} found; the kit trains on one, this one, not {others}"
    fix = f"to use another, put {how_to_choose(nvidia, another)} before the command"
    return [*findings, warning("gpu.several", message, fix, where)]


def _is_a_guess(nvidia: Nvidia) -> bool:
    """Tell whether only CUDA itself knows which GPU a run uses."""
    if counts_as_the_driver(nvidia.gpus, nvidia.cuda_device_order):
        return False
    first = (nvidia.cuda_visible_devices or "0").split(",")[0].strip()
    return first.isdecimal()


def _asked(nvidia: Nvidia) -> str:
    return "the first" if nvidia.visible is None else f"{VISIBLE}={nvidia.cuda_visible_devices}"


def _memory(gpu: Gpu, where: str) -> Finding:
    size = gigabytes(gpu.memory_total_bytes)
    id, what = ("gpu.mig", "this MIG slice") if gpu.is_mig_slice else ("gpu.memory", "this GPU")  # noqa: A001
    smallest, largest = planned("cuda").device_bytes, planned("h100").device_bytes
    if gpu.memory_total_bytes < smallest:
        fix = (
            "use a larger slice, or the whole GPU" if gpu.is_mig_slice else "use a GPU with more memory, or: make demo"
        )
        needed = f"the smallest 7B run needs about {gigabytes(smallest)}"
        return error(id, f"{what} has {size}; {needed}", fix, where)
    if gpu.memory_total_bytes < H100_BYTES:
        made_for = f"{gigabytes(H100_BYTES)} (plan: {gigabytes(largest)})"
        message = f"{what} has {size}; the H100 configuration is made for {made_for}"
        fix = "make validate CONFIG=configs/training_config.yaml, which compares what a run needs with this machine"
        if gpu.is_mig_slice:
            fix = f"use a larger slice or the whole GPU; or {fix}"
        return warning(id, message, fix, where)
    return ok(id, f"{what} has {size}", where)


def _busy(nvidia: Nvidia, gpu: Gpu, platform: str, where: str) -> Finding:
    used = gpu.memory_used_bytes
    if used is None:
        return skipped("gpu.busy", "memory in use unknown, not checked", where=where)
    if used < _IDLE_BYTES:
        return ok("gpu.busy", f"{gigabytes(gpu.memory_free_bytes)} of its memory free", where)
    free = gigabytes(gpu.memory_free_bytes)
    message = f"other programs use {gigabytes(used)} of its memory, {free} are free"
    fix = "find them with nvidia-smi, and end them or wait"
    idle = [other for other in nvidia.gpus if (other.memory_used_bytes or 0) < _IDLE_BYTES and not other.mig_enabled]
    if idle:
        fix = f"put {how_to_choose(nvidia, idle[0])} before the command to use an idle GPU; or {fix}"
    needed = planned(platform).device_bytes
    if gpu.memory_free_bytes < needed <= gpu.memory_total_bytes:
        return error("gpu.busy", f"{message}; {gigabytes(needed)} are needed", fix, where)
    return warning("gpu.busy", message, fix, where)


def _bf16(gpu: Gpu, where: str) -> Finding:
    known = gpu.compute_capability
    if known is None:
        return skipped("gpu.bf16", "compute capability unknown, bfloat16 not checked", where=where)
    capability = f"compute capability {known[0]}.{known[1]}"
    if known < OLDEST_BF16:
        message = f"{capability} has no bfloat16, which the configurations use; 8.0 or later has it"
        return warning("gpu.bf16", message, f'add SET="{FLOAT16_OVERRIDES}"', where)
    return ok("gpu.bf16", f"{capability} has bfloat16", where)


def _stacks(gpu: Gpu, where: str) -> list[Finding]:
    found = []
    for stack in (item.traits for item in GENERATIONS.values()):
        known, newest = gpu.compute_capability, stack.newest_capability
        if known and newest and known > newest:
            capability = f"compute capability {known[0]}.{known[1]}"
            message = f"{capability} is newer than CUDA {stack.cuda}, so the {stack.name} stack cannot use it"
            found.append(warning("gpu.stack", message, f"use STACK={stack.reader.instead}", where))
    return found
