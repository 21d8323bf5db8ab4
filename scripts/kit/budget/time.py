"""How long a run takes, by arithmetic: what its tokens cost to compute, over what the device computes a second.

FLOP a token, forward and backward, counting a multiply-add as two: the frozen linear layers 4 x their parameters (no
gradient of a frozen weight), the adapter 6 x its own, causal attention 7 x heads x head_dim x length a layer (its
backward pass recomputes the scores), the head 6 x its parameters for each scored token in the current stack, 4 x in
the reference stack. A recomputed layer adds a forward pass. Mistral-7B at 4,096 tokens: 32.7 GFLOP, 47.8 with all
layers recomputed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.budget.loss import scored_tokens
from kit.machine.platforms import FLOPS_PER_SECOND, M4_GPU_CORES

if TYPE_CHECKING:
    from kit.budget.job import Job
    from kit.budget.workload import Workload
    from kit.machine.facts import Machine

# Dense 16-bit tensor TFLOP/s and memory bandwidth in TB/s, as in NVIDIA's data sheets; first match in the GPU's name.
_GPUS = (
    ("H200", 989, 4.8),
    ("H100 PCIe", 756, 2.0),
    ("H100", 989, 3.35),
    ("A100", 312, 1.555),
    ("L40S", 362, 0.864),
    ("L4", 121, 0.3),
    ("A10", 125, 0.6),
    ("RTX 4090", 165, 1.008),
    ("RTX 3090", 71, 0.936),
    ("T4", 65, 0.3),
)
# Of its data sheet's rate a GPU is expected to reach a third at worst; at best what a matrix multiplication alone was
# measured to reach on an H200: 790 of 989 TFLOP/s.
_WORST, _BEST = 1 / 3, 0.8
# Memory bandwidth in bytes a second, for expanding 4-bit weights: of an M4 as Apple states it, of CPUs roughly.
_BANDWIDTH = {"h100": 3.35e12, "cuda": 0.3e12, "m4": 0.12e12, "cpu": 0.03e12}
# Expanding reads 4 bits and writes 16, and the multiplication reads them again.
_EXPANSION_BYTES = 4.5
# Below this many parameters a step is bound by overheads, which no proportion gives.
_SMALLEST_MODEL = 700_000_000


@dataclass(frozen=True)
class Speed:
    """What a device computes and moves a second, at worst and at best, and where the figures come from."""

    slow_flops: float
    fast_flops: float
    bandwidth: float
    reason: str


@dataclass(frozen=True)
class Duration:
    """How long a run takes.

    Attributes:
        flop: Of the whole run.
        expansion_seconds: Part of it that goes into expanding 4-bit weights.
        fast_seconds: At the best rate.
        slow_seconds: At the worst.
        speed: The rates.
    """

    flop: float
    expansion_seconds: float
    fast_seconds: float
    slow_seconds: float
    speed: Speed


def speed_of(machine: Machine, platform: str, gpu_name: str = "") -> Speed:
    """Return the rates of a device."""
    slow, fast = FLOPS_PER_SECOND[platform]
    for name, teraflops, bandwidth in _GPUS:
        if name in gpu_name:
            peak = teraflops * 1e12
            reason = f"{name}: {teraflops} TFLOP/s on its data sheet, a third to four fifths of it reached"
            return Speed(peak * _WORST, peak * _BEST, bandwidth * 1e12, reason)
    cores = machine.apple.gpu_cores if machine.apple else None
    scale = cores / M4_GPU_CORES if platform == "m4" and cores else 1.0
    reason = f"{platform}: {_tera(slow * scale)} to {_tera(fast * scale)} TFLOP/s"
    return Speed(slow * scale, fast * scale, _BANDWIDTH[platform] * scale, reason)


def _tera(flops: float) -> str:
    return f"{flops / 1e12:.3g}"


def flop_of(job: Job, work: Workload) -> float:
    """Return the operations of a run's micro-batches, forward and backward."""
    shape = job.shape
    layers = shape.num_hidden_layers
    lora = job.settings.lora
    adapter = shape.lora_parameters(lora.r, lora.target_modules)
    tokens = work.computed_tokens
    scored = tokens if job.is_reference else scored_tokens(job, work)
    # Causal: half of the square.
    scores = 2 * layers * shape.num_attention_heads * shape.head_dim * work.attended_tokens
    forward = 2 * (shape.linear_parameters + adapter) * tokens + scores
    backward = (2 * shape.linear_parameters + 4 * adapter) * tokens + 2.5 * scores
    again = forward * job.checkpointed_layers / layers
    head = 2 * shape.vocab_size * shape.hidden_size * (2 if job.is_reference else 3)
    return forward + backward + again + scored * head


def duration_of(job: Job, workload: Workload, speed: Speed) -> Duration | None:
    """Return how long a run takes, or None for a model too small for this arithmetic."""
    shape = job.shape
    if shape.linear_parameters < _SMALLEST_MODEL:
        return None
    flop = flop_of(job, workload)
    expansion = 0.0
    if job.in_4bit:
        passes = 2 + job.checkpointed_layers / shape.num_hidden_layers
        expansion = workload.forward_passes * passes * shape.linear_parameters * _EXPANSION_BYTES / speed.bandwidth
    return Duration(flop, expansion, flop / speed.fast_flops + expansion, flop / speed.slow_flops + expansion, speed)
