"""The configurations the formulas are held to: small models on a CPU, Mistral-7B on a GPU. Imports torch when asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.model.shape import MISTRAL_7B, ModelShape
from kit.plan.step import MicroBatch, TrainingStep

if TYPE_CHECKING:
    from kit.stacks.generation import Traits

_BASE = PROJECT_ROOT / "configs" / "training_config_h100.yaml"
_PLAIN: dict[str, Any] = {"lora.lora_dropout": 0.0, "training.gradient_checkpointing": False}
_DROPOUT = {"lora.lora_dropout": 0.05}
_CHECKPOINTS = {"training.gradient_checkpointing": True}
_UNQUANTISED = {"quantization.load_in_4bit": False}
_FLOAT32 = {
    "model.torch_dtype": "float32",
    "training.bf16": False,
    "quantization.bnb_4bit_compute_dtype": "float32",
}
_SMALL = ModelShape(512, 256, 896, 4, 8, 2, 32, 4_096)
_SHAPES = {
    "every head its own keys": ModelShape(1_000, 128, 320, 4, 4, 4, 32, 4_096),
    "one key head": ModelShape(512, 320, 640, 3, 16, 1, 20, 4_096),
    "wide heads": ModelShape(4_000, 256, 768, 5, 4, 2, 64, 4_096),
    "narrow feed-forward": ModelShape(512, 256, 256, 4, 8, 4, 32, 4_096),
}


@dataclass(frozen=True)
class Case:
    """One configuration to measure."""

    name: str
    job: TrainingStep


@dataclass(frozen=True)
class Measured:
    """What was counted of one case.

    Attributes:
        standing_bytes: Parameters, buffers, quantisation constants and gradients, before the step that is counted; on
            CUDA all that is allocated.
        saved_bytes: What autograd keeps after the forward pass, parameters left out, each storage once.
        step_bytes: The peak of a forward and backward pass above what stood before it.
        layers_bytes: The same without head and loss.
    """

    standing_bytes: int
    saved_bytes: int
    step_bytes: int
    layers_bytes: int


def cases(stack: Traits, *, small: bool = False) -> list[Case]:
    """Return what is measured with a stack: on its GPU if there is one, and if not ``small``."""
    import torch

    if torch.cuda.is_available() and not small:
        return gpu_cases(stack, torch.cuda.get_device_capability())
    return _on_cpu(stack)


def case_names(stack: Traits, *, on_gpu: bool) -> list[str]:
    """Return the names of what ``cases`` returns; imports no torch."""
    return [case.name for case in (gpu_cases(stack) if on_gpu else _on_cpu(stack))]


def _job(stack: Traits, shape: ModelShape, batch: MicroBatch, every: int, **more: Any) -> TrainingStep:
    overrides = _PLAIN | {"lora.r": 8} | more.pop("overrides", {})
    return TrainingStep(shape, resolve(_BASE, overrides).settings, stack, "cpu", more.pop("attention"), batch, every)


def base_job(stack: Traits, shape: ModelShape, device: str) -> TrainingStep:
    """Return a job whose base all cases on a device share, and all that ``make prove`` times."""
    on_cuda = device == "cuda"
    overrides = {} if on_cuda else _FLOAT32
    return replace(
        _job(stack, shape, _batch(1, 8), 1, attention=stack.plain_attention, overrides=overrides), device=device
    )


def _batch(rows: int, length: int, *, padded: bool = False) -> MicroBatch:
    return MicroBatch(rows, length, padded, rows * (length - 1) - padded)


def _on_cpu(stack: Traits) -> list[Case]:
    """Small models; an older stack has no 4-bit on a CPU, no SDPA and checkpoints all layers or none."""
    attention, in_4bit = stack.plain_attention, "cpu" in stack.four_bit_platforms
    quantised: dict[str, Any] = {} if in_4bit else _UNQUANTISED
    wanted: list[tuple[str, dict[str, Any], int]] = [
        ("no checkpoints", {}, 1),
        ("dropout", _DROPOUT, 1),
        ("all layers checkpointed", _CHECKPOINTS, 1),
        ("all layers checkpointed, dropout", _CHECKPOINTS | _DROPOUT, 1),
        ("float32", _FLOAT32, 1),
        ("float32, dropout, checkpoints", _FLOAT32 | _DROPOUT | _CHECKPOINTS, 1),
        ("float32 base in mixed precision", {"model.torch_dtype": "float32"}, 1),
        ("bfloat16 adapter", {"lora.adapter_dtype": "bfloat16"}, 1),
        ("adapters on attention alone", {"lora.target_modules": ["q_proj", "v_proj"]}, 1),
    ]
    if in_4bit:
        wanted += [
            ("unquantised", _UNQUANTISED, 1),
            ("unquantised, dropout", _UNQUANTISED | _DROPOUT, 1),
            ("no double quantisation", {"quantization.bnb_4bit_use_double_quant": False}, 1),
        ]
    if stack.partial_checkpointing_from:
        wanted += [
            ("every 2nd layer checkpointed", _CHECKPOINTS, 2),
            ("every 2nd layer checkpointed, dropout", _CHECKPOINTS | _DROPOUT, 2),
            ("every 3rd layer checkpointed", _CHECKPOINTS, 3),
        ]
    found = [
        Case(name, _job(stack, _SMALL, _batch(2, 64), every, attention=attention, overrides=quantised | overrides))
        for name, overrides, every in wanted
    ]
    for rows, length, padded in ((1, 192, False), (3, 48, True), (4, 128, True)):
        name = f"{rows} x {length}{', padded' if padded else ''}"
        batch = _batch(rows, length, padded=padded)
        found.append(Case(name, _job(stack, _SMALL, batch, 1, attention=attention, overrides=quantised | _DROPOUT)))
    for name, shape in _SHAPES.items():
        found.append(Case(name, _job(stack, shape, _batch(2, 96), 1, attention=attention, overrides=quantised)))
    if attention != "eager":
        found.append(Case("eager", _job(stack, _SMALL, _batch(2, 256), 1, attention="eager")))
    return found


def gpu_cases(stack: Traits, capability: tuple[int, int] | None = None) -> list[Case]:
    """Return what is measured on a GPU: Mistral-7B in 4 bits, r=16 on all modules, as the shipped configuration has it.

    Args:
        stack: What the libraries do.
        capability: The GPU's compute capability, where it is known.
    """
    sizes: list[tuple[int, int, dict[str, Any], int, bool]] = [
        (1, 2_048, _CHECKPOINTS, 1, False),
        (4, 2_048, _CHECKPOINTS, 1, False),
        (4, 4_096, _CHECKPOINTS, 1, False),
        (8, 4_096, _CHECKPOINTS, 1, False),
        (4, 4_096, _CHECKPOINTS | _DROPOUT, 1, False),
        (4, 4_096, _CHECKPOINTS | _DROPOUT, 1, True),
        (1, 512, {}, 1, False),
        (1, 4_096, {}, 1, False),
        (1, 4_096, _DROPOUT, 1, False),
        (2, 4_096, {}, 1, False),
        (2, 2_048, _DROPOUT, 1, True),
        (2, 4_096, _CHECKPOINTS, 2, False),
        (4, 4_096, _CHECKPOINTS, 3, False),
        (4, 2_048, _CHECKPOINTS | {"quantization.bnb_4bit_use_double_quant": False}, 1, False),
    ]
    found = []
    for rows, length, overrides, every, padded in sizes:
        if every > 1 and stack.partial_checkpointing_from is None:
            continue
        batch = _batch(rows, length, padded=padded)
        job = _job(
            stack, MISTRAL_7B, batch, every, attention=stack.plain_attention, overrides=overrides | {"lora.r": 16}
        )
        words = [f"{rows} x {length}", f"every {every}", *(f"{key}={value}" for key, value in overrides.items())]
        name = ", ".join([*words, "padded"] if padded else words)
        found.append(Case(name, replace(job, device="cuda", capability=capability)))
    return found
