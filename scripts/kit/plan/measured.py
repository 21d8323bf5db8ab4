"""Measured speeds: the ledger's, of a run's device, and of its settings and rows there.

``described`` is written beside a measurement's figures (``make prove``) and compared with a run's here.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kit.plan.ledger import FOLDER, newest, read_all

if TYPE_CHECKING:
    from kit.plan.step import TrainingStep
    from kit.plan.workload import Workload

# Micro-batches that differ by less in size, in their largest and in their rows' length are the same work.
_ALIKE = 0.1
# How far off a run may be. Full rows measured twice on one machine were 1 % apart; another machine of the name has its
# own clocks, host and heat. Rows of many lengths measured twice were 14 % apart.
_SPREAD, _RAGGED_SPREAD = 0.1, 0.2
_SCALE = "7b"


@dataclass(frozen=True)
class Rate:
    """One measured speed.

    Attributes:
        variant: What was trained how.
        tokens_per_second: Computed tokens, padding counted.
        flop_per_second: The same in operations.
    """

    name: str
    date: str
    variant: dict[str, Any]
    work: dict[str, float]
    tokens_per_second: float
    flop_per_second: float

    @property
    def spread(self) -> float:
        """How far off a run of these settings may be, as a share."""
        return _SPREAD if _is_near(self.work["largest_tokens"], self.work["tokens_at_once"]) else _RAGGED_SPREAD


def described(job: TrainingStep, workload: Workload, flop: float) -> dict[str, Any]:
    """Return what a measured speed is valid for: the settings that a step's time depends on, and the micro-batches."""
    return {"variant": _variant(job), "work": {**_work(workload), "flop": flop, "tokens": workload.computed_tokens}}


@functools.lru_cache(maxsize=8)
def rates_on(device: str) -> tuple[Rate, ...]:
    """Return the speeds that were measured on a device, the newest of each; none where there is no ledger."""
    try:
        records = read_all(FOLDER)
    except OSError:
        return ()
    found = newest([record for record in records if (record.place.device, record.place.scale) == (device, _SCALE)])
    return tuple(
        Rate(
            record.measurement,
            record.date[:10],
            record.result["variant"],
            record.result["work"],
            record.result["work"]["tokens"] / sum(record.result["step_seconds"]),
            record.result["work"]["flop"] / sum(record.result["step_seconds"]),
        )
        for record in found.values()
        if {"variant", "work", "step_seconds"} <= set(record.result)
    )


def rate_of(job: TrainingStep, workload: Workload, rates: tuple[Rate, ...]) -> Rate | None:
    """Return the speed that was measured with a run's settings on rows like its own, the newest; None for none."""
    variant, work = _variant(job), _work(workload)
    found = [
        rate
        for rate in rates
        if rate.variant == variant and all(_is_near(size, rate.work[name]) for name, size in work.items())
    ]
    return max(found, key=lambda rate: rate.date, default=None)


def _variant(job: TrainingStep) -> dict[str, Any]:
    settings = job.settings
    training, quantization, lora = settings.training, settings.quantization, settings.lora
    return {
        "stack": job.stack.name,
        "shape": asdict(job.shape),
        "attention": job.attention,
        "torch_dtype": settings.model.torch_dtype,
        "bf16": training.bf16,
        "load_in_4bit": quantization.load_in_4bit,
        "double_quant": quantization.load_in_4bit and quantization.bnb_4bit_use_double_quant,
        "rank": lora.r,
        "modules": len(lora.target_modules),
        "adapter_dtype": lora.adapter_dtype,
        "dropout": job.dropout,
        "checkpointed_layers": job.checkpointed_layers,
        "padding_free": training.padding_free,
        "torch_compile": training.torch_compile,
        "use_liger_kernel": training.use_liger_kernel,
    }


def _work(workload: Workload) -> dict[str, float]:
    return {
        "tokens_at_once": workload.computed_tokens / workload.forward_passes,
        "largest_tokens": max(batch.tokens for batch in workload.largest),
        "length": workload.attended_tokens / workload.computed_tokens,
    }


def _is_near(one: float, other: float) -> bool:
    return abs(one / other - 1) <= _ALIKE
