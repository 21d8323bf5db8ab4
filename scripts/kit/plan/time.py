"""How long a run takes: as it was measured with its settings, or what its tokens cost over what a device computes.

FLOP a token, forward and backward, counting a multiply-add as two: the frozen linear layers 4 x their parameters (no
gradient of a frozen weight), the adapter 6 x its own, causal attention 7 x heads x head_dim x length a layer (its
backward pass recomputes the scores), the head 6 x its parameters for each scored token of a loss in tiles, 4 x of one
on all logits. A recomputed layer adds a forward pass. Mistral-7B at 4,096 tokens: 32.7 GFLOP, 47.8 with all
layers recomputed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.machine.platforms import M4_GPU_CORES
from kit.plan.loss import scored_tokens
from kit.plan.measured import Rate, rate_of, rates_on

if TYPE_CHECKING:
    from kit.machine.facts import Machine
    from kit.plan.step import TrainingStep
    from kit.plan.workload import Workload

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
# The share of its data sheet that a GPU is expected to reach. An H100 reached 0.16 in small padded micro-batches of
# many lengths, 0.35 in full rows and 0.68 in a matrix product alone (measurements/). Idling and what runs at its
# memory's speed are nearly half of its step, and less where computing is slower: the best is taken to be 0.6.
_WORST, _BEST = 0.16, 0.6
# Operations a second of a platform whose device is in no list, at worst and at best.
# h100: as an H100 was measured (measurements/) with the shipped settings, in rows of many lengths and in full rows.
# cuda: not measured: from a T4 at worst to an A100 at best. A GPU newer than the H100 can be faster.
# m4: not measured: the 3.8 to 4.3 TFLOP/s of an M4's ten GPU cores; a ceiling.
# cpu: not measured: 50 to 500 GFLOP/s in float32.
_FLOPS_PER_SECOND = {
    "h100": (238e12, 338e12),
    "cuda": (65e12 * _WORST, 312e12 * _BEST),
    "m4": (3.8e12, 4.3e12),
    "cpu": (0.05e12, 0.5e12),
}
# Memory bandwidth in bytes a second, for expanding 4-bit weights: of an M4 as Apple states it, of CPUs roughly.
_BANDWIDTH = {"h100": 3.35e12, "cuda": 0.3e12, "m4": 0.12e12, "cpu": 0.03e12}
# Expanding reads 4 bits and writes 16, and the multiplication reads them again.
_EXPANSION_BYTES = 4.5
# Below this many parameters a step is bound by overheads, which no proportion gives.
_SMALLEST_MODEL = 700_000_000


@dataclass(frozen=True)
class Speed:
    """What a device computes and moves a second, at worst and at best, and where the figures come from.

    Attributes:
        slow_flops: Operations, at worst.
        fast_flops: At best.
        bandwidth: Bytes.
        reason: In words where the figures come from.
        rates: What was measured on the device.
    """

    slow_flops: float
    fast_flops: float
    bandwidth: float
    reason: str
    rates: tuple[Rate, ...] = ()


@dataclass(frozen=True)
class Duration:
    """How long a run takes.

    Attributes:
        flop: Of the whole run.
        expansion_seconds: By arithmetic, the part that goes into expanding 4-bit weights.
        arithmetic_seconds: At the worst rate by arithmetic, which ranks settings that were measured and others alike.
        rate: What was measured with the run's own settings; None where the times are arithmetic.
    """

    flop: float
    expansion_seconds: float
    arithmetic_seconds: float
    fast_seconds: float
    slow_seconds: float
    speed: Speed
    rate: Rate | None = None

    @property
    def basis(self) -> str:
        """What the times rest on: ``by arithmetic`` or ``as measured …``."""
        return "as measured with these settings on this GPU model" if self.rate else "by arithmetic"

    @property
    def source(self) -> str:
        """Where the rate comes from."""
        if self.rate is None:
            return self.speed.reason
        rate = self.rate
        return f"{rate.tokens_per_second:,.0f} computed tokens/s, ±{rate.spread:.0%} ({rate.name}, {rate.date})"


def speed_of(machine: Machine, platform: str, gpu_name: str = "") -> Speed:
    """Return the rates of a device."""
    slow, fast = _FLOPS_PER_SECOND[platform]
    sheet = next((row for row in _GPUS if row[0] in gpu_name), None)
    bandwidth = sheet[2] * 1e12 if sheet else _BANDWIDTH[platform]
    if rates := rates_on(gpu_name):
        slow, fast = (bound(rate.flop_per_second for rate in rates) for bound in (min, max))
        reason = f"{_tera(slow)} to {_tera(fast)} TFLOP/s, measured on {gpu_name} with other settings or rows"
        return Speed(slow, fast, bandwidth, reason, rates)
    if sheet:
        name, teraflops, _ = sheet
        reason = f"{name}: {teraflops} TFLOP/s on its data sheet, 0.16 to 0.6 of it reached (an H100: 0.16 to 0.35)"
        return Speed(teraflops * 1e12 * _WORST, teraflops * 1e12 * _BEST, bandwidth, reason)
    cores = machine.apple.gpu_cores if machine.apple else None
    scale = cores / M4_GPU_CORES if platform == "m4" and cores else 1.0
    reason = f"{platform}: {_tera(slow * scale)} to {_tera(fast * scale)} TFLOP/s"
    return Speed(slow * scale, fast * scale, bandwidth * scale, reason)


def _tera(flops: float) -> str:
    return f"{flops / 1e12:.3g}"


def flop_of(job: TrainingStep, work: Workload) -> float:
    """Return the operations of a run's micro-batches, forward and backward."""
    shape = job.shape
    layers = shape.num_hidden_layers
    lora = job.settings.lora
    adapter = shape.lora_parameters(lora.r, lora.target_modules)
    tokens = work.computed_tokens
    scored = scored_tokens(job, work) if job.stack.loss_in_tiles else tokens
    # Causal: half of the square.
    scores = 2 * layers * shape.num_attention_heads * shape.head_dim * work.attended_tokens
    forward = 2 * (shape.linear_parameters + adapter) * tokens + scores
    backward = (2 * shape.linear_parameters + 4 * adapter) * tokens + 2.5 * scores
    again = forward * job.checkpointed_layers / layers
    head = 2 * shape.vocab_size * shape.hidden_size * (3 if job.stack.loss_in_tiles else 2)
    return forward + backward + again + scored * head


def duration_of(job: TrainingStep, workload: Workload, speed: Speed) -> Duration | None:
    """Return how long a run takes, or None for a model too small for this arithmetic."""
    shape = job.shape
    if shape.linear_parameters < _SMALLEST_MODEL:
        return None
    flop = flop_of(job, workload)
    expansion = 0.0
    if job.in_4bit:
        passes = 2 + job.checkpointed_layers / shape.num_hidden_layers
        expansion = workload.forward_passes * passes * shape.linear_parameters * _EXPANSION_BYTES / speed.bandwidth
    fast, slow = flop / speed.fast_flops + expansion, flop / speed.slow_flops + expansion
    rate = rate_of(job, workload, speed.rates)
    if rate is None:
        return Duration(flop, expansion, slow, fast, slow, speed)
    seconds = workload.computed_tokens / rate.tokens_per_second
    return Duration(flop, expansion, slow, seconds * (1 - rate.spread), seconds * (1 + rate.spread), speed, rate)
