"""The plan of one run on one machine: memory, tokens, time, verdict. What the commands and the receipt show."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kit.plan.limits import MemoryLimit, memory_limit
from kit.plan.memory import Peak, plan_peak, step_bytes
from kit.plan.overheads import Term, sources
from kit.plan.step import TrainingStep, device_of
from kit.plan.time import Duration, duration_of, speed_of
from kit.stacks.registry import DEFAULT
from kit.stacks.stack import stack_named

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.machine.facts import Gpu, Machine
    from kit.machine.platforms import Judgement
    from kit.model.shape import ModelShape
    from kit.plan.overheads import Source
    from kit.plan.step import MicroBatch
    from kit.plan.workload import Workload
    from kit.stacks.stack import Stack


@dataclass(frozen=True)
class Device:
    """What a run is planned on.

    Attributes:
        gpu: The NVIDIA GPU a run uses; None elsewhere.
        attention: The implementation that will run, not ``auto``.
    """

    machine: Machine
    platform: str
    gpu: Gpu | None
    stack: Stack
    attention: str

    @property
    def limit(self) -> MemoryLimit | None:
        """What a run can take here."""
        return memory_limit(self.machine, self.platform, self.gpu)


@dataclass(frozen=True)
class RunPlan:
    """What a run will take.

    Attributes:
        peak: Memory, term by term, at its worst micro-batch.
        batch: That micro-batch.
        tokens: Tokens of the rows over the whole run.
        computed_tokens: The same with padding.
        is_counted: The rows' lengths were counted; otherwise every row is taken to be full length.
        duration: Time, with what it rests on; None for a model too small for the arithmetic.
        limit: What the device lends; None where it does not say.
        verdict: ``fits``, ``tight``, ``does not fit`` or ``unknown``.
    """

    peak: Peak
    batch: MicroBatch
    steps: int
    tokens: int
    computed_tokens: int
    is_counted: bool
    duration: Duration | None
    limit: MemoryLimit | None
    verdict: str
    sources: tuple[Source, ...]

    @property
    def peak_memory_bytes(self) -> int:
        """All terms together."""
        return self.peak.peak_memory_bytes

    def as_mapping(self) -> dict[str, Any]:
        """Return what ``--json`` and the run's receipt show."""
        return {
            "peak_memory_bytes": self.peak_memory_bytes,
            "allocated_bytes": self.peak.allocated_bytes,
            "terms": {term.name: term.size_bytes for term in self.peak.terms},
            "moment": self.peak.moment,
            "micro_batch": {"rows": self.batch.rows, "length": self.batch.length, "padded": self.batch.has_padding},
            "steps": self.steps,
            "tokens": self.tokens,
            "computed_tokens": self.computed_tokens,
            "lengths_counted": self.is_counted,
            "seconds": [self.duration.fast_seconds, self.duration.slow_seconds] if self.duration else None,
            "flop": self.duration.flop if self.duration else None,
            "limit_bytes": self.limit.size_bytes if self.limit else None,
            "verdict": self.verdict,
        }


def plan_run(settings: Settings, shape: ModelShape, device: Device, workload: Workload) -> RunPlan:
    """Plan a run of ``workload_of(order_batches(…), settings)`` or of ``full_length(…)``."""
    apart = settings.training.gradient_checkpointing_every_n_layers
    first = workload.largest[0]
    capability = device.gpu.compute_capability if device.gpu else None
    job = TrainingStep(
        shape, settings, device.stack.traits, device_of(device.platform), device.attention, first, apart, capability
    )
    job = max((replace(job, batch=batch) for batch in workload.largest), key=step_bytes)
    peak = plan_peak(job)
    if job.device != "cuda" and workload.rows_bytes:  # a CPU's memory and a Mac's hold the rows too
        peak = replace(peak, terms=(*peak.terms, Term("rows and their order", workload.rows_bytes)))
    speed = speed_of(device.machine, device.platform, device.gpu.name if device.gpu else "")
    limit = device.limit
    return RunPlan(
        peak=peak,
        batch=job.batch,
        steps=workload.steps,
        tokens=workload.tokens,
        computed_tokens=workload.computed_tokens,
        is_counted=workload.is_counted,
        duration=duration_of(job, workload, speed),
        limit=limit,
        verdict=limit.verdict(peak.peak_memory_bytes) if limit else "unknown",
        sources=sources(job),
    )


def device_for(settings: Settings, judgement: Judgement, machine: Machine, stack: Stack) -> Device:
    """Return what a configuration runs on, with the attention it would have there.

    Where no stack is installed, it is the one that `make setup` would install.
    """
    if not stack.is_installed:
        stack = stack_named(DEFAULT, judgement.platform)
    attention = stack.planned_attention(settings, judgement.platform)
    return Device(machine, judgement.platform, judgement.gpu, stack, attention)
