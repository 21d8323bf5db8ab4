"""Rules on number types: what contradicts itself, and what the device cannot do or does slowly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, warning
from kit.machine.nvidia_rules import FLOAT16_OVERRIDES, OLDEST_BF16

if TYPE_CHECKING:
    from kit.checks.context import CheckContext

_OLDEST_BF16_MACOS = (14, 0)
FLOAT32_OVERRIDES = "training.bf16=false model.torch_dtype=float32 quantization.bnb_4bit_compute_dtype=float32"


def mixed_precision(run: CheckContext) -> list[Finding]:
    """Allow one mixed precision, of the same type as the weights and the 4-bit compute."""
    training, model = run.settings.training, run.settings.model
    if training.bf16 and training.fp16:
        message = "training.bf16 and training.fp16 are both true; only one may be"
        return [error("config.precision.both", message, "training.fp16=false", run.where("training.fp16"))]
    found = []
    mixed = run.settings.mixed_precision
    switch = "training.bf16" if training.bf16 else "training.fp16"
    if mixed and model.torch_dtype not in {mixed, "float32"}:
        message = f"model.torch_dtype is {model.torch_dtype} while {switch} is true; it must be {mixed} or float32"
        fix = f"model.torch_dtype={mixed}"
        found.append(error("config.precision.torch_dtype", message, fix, run.where("model.torch_dtype")))
    if training.fp16 and run.settings.lora.adapter_dtype == "bfloat16":
        message = (
            "lora.adapter_dtype is bfloat16 while training.fp16 is true; float16's gradient scaling does not support it"
        )
        where = run.where("lora.adapter_dtype")
        found.append(error("config.precision.adapter_dtype", message, "lora.adapter_dtype=float32", where))
    return found


def compute_dtype(run: CheckContext) -> list[Finding]:
    """Compare the 4-bit compute type with the mixed precision."""
    training, quantization = run.settings.training, run.settings.quantization
    if not quantization.load_in_4bit or training.bf16 == training.fp16:
        return []
    mixed = run.settings.mixed_precision
    compute = quantization.bnb_4bit_compute_dtype
    if compute == mixed:
        return []
    key = "quantization.bnb_4bit_compute_dtype"
    switch = f"training.{'bf16' if training.bf16 else 'fp16'}"
    if compute == "float32":
        message = f"{key} is float32 while {switch} is true: correct, but matrix multiplication is several times slower"
        return [warning("config.precision.compute_dtype", message, f"{key}={mixed}", run.where(key))]
    message = f"{key} is {compute} while {switch} is true; it must be {mixed} or float32"
    return [error("config.precision.compute_dtype", message, f"{key}={mixed}", run.where(key))]


def float16_device(run: CheckContext) -> list[Finding]:
    """Refuse float16 mixed precision off CUDA: its gradient scaler is written for CUDA."""
    if not run.settings.training.fp16 or run.on_cuda:
        return []
    message = f"training.fp16 is true, but float16 mixed precision needs an NVIDIA GPU; this platform is {run.platform}"
    fix = FLOAT32_OVERRIDES if run.platform == "cpu" else "training.fp16=false training.bf16=true"
    return [error("config.precision.fp16", message, fix, run.where("training.fp16"))]


def bfloat16_device(run: CheckContext) -> list[Finding]:
    """Refuse bfloat16 where the device has none, and warn where it is emulated."""
    if not run.uses_bfloat16:
        return []
    where = run.where(_first_bfloat16(run))
    capability = run.gpu.compute_capability if run.gpu else None
    if run.gpu and capability and capability < OLDEST_BF16:
        has = f"{run.gpu.name} has {capability[0]}.{capability[1]}"
        message = f"bfloat16 needs compute capability 8.0 or later; {has}"
        return [error("config.precision.bf16", message, FLOAT16_OVERRIDES, where)]
    macos = run.machine.apple.macos_version if run.machine.apple else None
    if run.platform == "m4" and macos and macos < _OLDEST_BF16_MACOS:
        message = f"bfloat16 on MPS needs macOS 14 or later; this is {macos[0]}.{macos[1]}"
        return [error("config.precision.bf16", message, f"update macOS, or {FLOAT32_OVERRIDES}", where)]
    if run.platform == "cpu":
        message = "bfloat16 on a CPU without AVX512-BF16 makes the backward pass about 40 times slower"
        return [warning("config.precision.bf16", message, FLOAT32_OVERRIDES, where)]
    return []


def _first_bfloat16(run: CheckContext) -> str:
    if run.settings.training.bf16:
        return "training.bf16"
    return (
        "model.torch_dtype" if run.settings.model.torch_dtype == "bfloat16" else "quantization.bnb_4bit_compute_dtype"
    )
