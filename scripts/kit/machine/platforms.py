"""Judge a machine: which platform it is and why, what to run on it, and how long that takes.

Pure functions over recorded facts (``kit.machine.facts``); what is wrong with the machine is in ``rules`` and
``nvidia_rules``. Standard library only, for Python 3.9 and later.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.console import gigabytes
from kit.config.platforms import PLATFORMS
from kit.machine.cuda_order import chosen_of
from kit.machine.nvidia_rules import FLOAT16_OVERRIDES, H100_BYTES, OLDEST_BF16, nvidia_findings
from kit.machine.planned import planned
from kit.machine.rules import GIB, apple_findings, host_findings
from kit.stacks.generation import dotted

if TYPE_CHECKING:
    from kit.cli.findings import Finding
    from kit.machine.facts import Apple, Gpu, Machine

H100_CAPABILITY = (9, 0)
OLDEST_MPS_MACOS = (12, 3)  # https://developer.apple.com/metal/pytorch/

CONFIGS = {
    "h100": Path("configs/training_config_h100.yaml"),
    "cuda": Path("configs/training_config.yaml"),
    "m4": Path("configs/training_config_m4.yaml"),
    "cpu": Path("configs/training_config_demo.yaml"),
}

M4_GPU_CORES = 10
# The job of the expected times.
EXAMPLES, EPOCHS = 15_000, 3
# Errors without a fix: the machine cannot hold Mistral-7B, but it can run the demo.
_TOO_SMALL = {"gpu.memory", "apple.memory"}
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Judgement:
    """A machine's platform, configuration and findings.

    Attributes:
        recommended_config: Relative to the project's root.
        next_command: ``make detect`` after an error, ``make demo`` if Mistral-7B does not fit.
        gpu: The NVIDIA GPU, or slice, that a run uses; None on m4 and cpu.
    """

    platform: str
    reason: str
    recommended_config: Path
    expected_time: str
    next_command: str
    findings: tuple[Finding, ...]
    gpu: Gpu | None = None

    def as_mapping(self) -> dict[str, Any]:
        """Return what ``--json`` shows besides the findings."""
        return {
            "platform": self.platform,
            "reason": self.reason,
            "recommended_config": self.recommended_config.as_posix(),
            "expected_time": self.expected_time,
            "next_command": self.next_command,
            "gpu_index": self.gpu.index if self.gpu else None,
        }


def hours(tokens: int, platform: str, gpu_cores: int | None = None) -> tuple[float, float]:
    """Return the (low, high) hours that training on this many tokens takes.

    Args:
        tokens: Rows x tokens per row x epochs, padding included.
        platform: One of ``PLATFORMS``.
        gpu_cores: A Mac's, if known.

    Raises:
        ValueError: There is no such platform, or the tokens are negative.
    """
    if platform not in PLATFORMS:
        raise ValueError(f"platform {platform!r} is not one of {', '.join(PLATFORMS)}")
    if tokens < 0:
        raise ValueError(f"tokens is {tokens}; it cannot be negative")
    takes = planned(platform)
    scale = gpu_cores / M4_GPU_CORES if platform == "m4" and gpu_cores else 1.0
    slow, fast = takes.slow_tokens_per_second * scale, takes.fast_tokens_per_second * scale
    return tokens / fast / _SECONDS_PER_HOUR, tokens / slow / _SECONDS_PER_HOUR


def judge(machine: Machine) -> Judgement:
    """Return a machine's platform, with all findings."""
    gpu = chosen_of(machine.nvidia)  # kit.machine.one_device leaves a process this one alone
    platform, reason = _platform(machine, gpu)
    findings = (
        *nvidia_findings(machine.nvidia, gpu, platform),
        *(apple_findings(machine.apple) if machine.apple else ()),
        *host_findings(machine, platform),
    )
    config = CONFIGS[platform]
    if platform == "cuda" and gpu and gpu.memory_total_bytes >= H100_BYTES and _has_bf16(gpu):
        config = CONFIGS["h100"]
    return Judgement(
        platform=platform,
        reason=reason,
        recommended_config=config,
        expected_time=_expected_time(platform, machine.apple),
        next_command=_after(findings) or _next_command(platform, config, gpu),
        findings=findings,
        gpu=gpu,
    )


def _after(findings: tuple[Finding, ...]) -> str:
    """Return the next command after an error; empty without one."""
    errors = {finding.id for finding in findings if finding.severity == "error"}
    if not errors:
        return ""
    return "make demo" if errors <= _TOO_SMALL else "make detect"


def _has_bf16(gpu: Gpu) -> bool:
    return gpu.compute_capability is None or gpu.compute_capability >= OLDEST_BF16


def _platform(machine: Machine, gpu: Gpu | None) -> tuple[str, str]:
    if gpu:
        return _cuda_platform(gpu)
    if machine.apple:
        return _apple_platform(machine.apple, machine)
    if machine.nvidia.gpus:
        return "cpu", f"{len(machine.nvidia.gpus)} NVIDIA GPUs, none usable"
    if machine.nvidia.problem:
        return "cpu", f"traces of an NVIDIA GPU, but none answered: {machine.nvidia.problem}"
    return "cpu", f"no NVIDIA GPU and no Apple silicon: {machine.cpu_model}, {machine.cpu_count} CPUs"


def _cuda_platform(gpu: Gpu) -> tuple[str, str]:
    known = gpu.compute_capability
    size = f"CUDA GPU with {gigabytes(gpu.memory_total_bytes)}"
    capability = f"compute capability {known[0]}.{known[1]}" if known else "compute capability unknown"
    if gpu.memory_total_bytes < H100_BYTES:
        return "cuda", f"{size} (h100 needs {gigabytes(H100_BYTES)}), {capability}: {gpu.name}"
    if known != H100_CAPABILITY:
        return "cuda", f"{size}, {capability} (h100 needs 9.0): {gpu.name}"
    return "h100", f"{size}, {capability}: {gpu.name}"


def _apple_platform(apple: Apple, machine: Machine) -> tuple[str, str]:
    if not apple.is_apple_silicon:
        return "cpu", f"Intel Mac, without MPS for this stack: {apple.chip}"
    if apple.is_rosetta:
        return "cpu", f"{apple.chip}, but this Python runs under Rosetta, and its torch has no MPS"
    version = dotted(apple.macos_version) if apple.macos_version else "of unknown version"
    if apple.macos_version and apple.macos_version < OLDEST_MPS_MACOS:
        return "cpu", f"{apple.chip}, but macOS {version} has no MPS"
    if machine.mps_available is False:
        return "cpu", f"{apple.chip} with macOS {version}, but torch says that MPS is not available"
    cores = f", {apple.gpu_cores} GPU cores" if apple.gpu_cores else ""
    memory = f", {apple.unified_memory_bytes / GIB:.0f} GB unified memory" if apple.unified_memory_bytes else ""
    return "m4", f"Apple silicon with MPS: {apple.chip}{cores}{memory}, macOS {version}"


def _next_command(platform: str, config: Path, gpu: Gpu | None) -> str:
    if platform == "h100":
        return "make train-h100"
    if platform == "m4":
        return "make train-m4"
    if platform == "cpu":
        return "make demo"
    overrides = "" if gpu is None or _has_bf16(gpu) else f' SET="{FLOAT16_OVERRIDES}"'
    return f"make train CONFIG={config.as_posix()}{overrides}"


def _expected_time(platform: str, apple: Apple | None) -> str:
    """Say how long the stated job takes, and on what basis."""
    job = f"{EXAMPLES:,} examples x {EPOCHS} epochs"
    rows = EXAMPLES * EPOCHS
    if platform == "cpu":
        return (
            "the demo takes about 3 minutes on 2 CPU cores; Mistral-7B is not for a CPU: "
            f"{job} at 2,048 tokens per example would take {_span(hours(rows * 2048, platform))}"
        )
    if platform == "m4":
        cores = apple.gpu_cores if apple else None
        high = 12
        length = high / hours(rows, platform, cores)[1]
        return (
            f"{job} take 8-12 h only up to about {length:,.0f} tokens per example; at 2,048 they take "
            f"{_span(hours(rows * 2048, platform, cores))} at best (arithmetic from the peak of "
            f"{cores or M4_GPU_CORES} GPU cores)"
        )
    short, long = _span(hours(rows * 2048, platform)), _span(hours(rows * 4096, platform))
    basis = "as an H100 was measured" if platform == "h100" else "arithmetic"
    return f"{job} take {short} at 2,048 tokens per example, {long} at 4,096 ({basis}; `make validate` counts yours)"


def _span(span: tuple[float, float]) -> str:
    low, high = span
    days = 48
    if low >= days:
        return f"{low / 24:,.0f}-{high / 24:,.0f} days"
    return f"{low:.1f}-{high:.1f} h"
