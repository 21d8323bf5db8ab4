"""What a run needs besides the device's memory: of the host while its base loads, and of the disk.

And what the shipped configurations take on each platform, for detection, which runs before anything is installed and
so cannot ask the plan: ``make docs`` writes it down (``kit.machine.planned``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.machine.facts import Gpu, Machine
from kit.machine.platforms import CONFIGS, EXAMPLES, Judgement
from kit.model.shape import MISTRAL_7B, ModelShape
from kit.plan.memory import adapter_bytes, optimizer_bytes
from kit.plan.overheads import PROCESS_BYTES
from kit.plan.run_plan import device_for, plan_run
from kit.stacks.stack import stack_named, stack_run_on

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.plan.run_plan import RunPlan

_PUBLISHED_BYTES = 2  # of a parameter: weights are published in 16 bits
# A base is read file by file; the largest of Mistral-7B's, in its first release, is 9.9 of 14.5 GB.
_LARGEST_FILE = 0.69
# Random generators, manifest, metrics so far and a few small files of a checkpoint.
_SMALL_FILES = 4_000_000
_DEMO = ModelShape(259, 128, 384, 4, 4, 2, 32, 512)
# The slowest and the fastest of a platform that stands for many devices.
_ENDS = {"cuda": ("T4", "A100")}
_ANYWHERE = Machine("", "", "", "", 1, None, None, None, in_container=False)


def published_bytes(shape: ModelShape) -> int:
    """Return the size of a base's files: 14.5 GB for Mistral-7B."""
    return shape.parameters * _PUBLISHED_BYTES


def loading_bytes(shape: ModelShape) -> int:
    """Return what passes through the host's memory while a base loads: its largest file, and the libraries."""
    return round(published_bytes(shape) * _LARGEST_FILE) + PROCESS_BYTES


def checkpoint_bytes(shape: ModelShape, settings: Settings) -> int:
    """Return the size of one checkpoint, at most: 0.51 GB for Mistral-7B with r=16 on all seven modules."""
    return adapter_bytes(shape, settings) + optimizer_bytes(shape, settings) + _SMALL_FILES


def output_bytes(shape: ModelShape, settings: Settings) -> tuple[int, int]:
    """Return what a run writes: one checkpoint and the adapter at least; at most all checkpoints that are kept.

    A new checkpoint is written whole before the oldest goes.
    """
    one, adapter = checkpoint_bytes(shape, settings), adapter_bytes(shape, settings)
    return one + adapter, (settings.training.save_total_limit + 1) * one + adapter


def shipped() -> dict[str, dict[str, int]]:
    """Return what each platform's own configuration takes, as ``kit.machine.planned`` reads it."""
    return {platform: _shipped(platform) for platform in CONFIGS}


def _shipped(platform: str) -> dict[str, int]:
    settings = _settings(platform)
    shape = _DEMO if platform == "cpu" else MISTRAL_7B
    kept = settings if platform != "cpu" else _settings("cuda")  # what Mistral-7B itself would take of a CPU's time
    fastest = replace(kept, training=replace(kept.training, gradient_checkpointing=False))
    ends = zip((kept, fastest), _ENDS.get(platform, ("", "")), strict=True)
    slow, fast = (_planned(choice, MISTRAL_7B, platform, gpu) for choice, gpu in ends)
    if slow.duration is None or fast.duration is None:
        raise ValueError(f"{platform}: Mistral-7B is no small model, and has a time")
    return {
        "device_bytes": _planned(settings, shape, platform).peak_memory_bytes,
        "loading_bytes": loading_bytes(shape),
        "weights_bytes": published_bytes(shape),
        "output_bytes": output_bytes(shape, settings)[1],
        "slow_tokens_per_second": max(1, round(slow.computed_tokens / slow.duration.slow_seconds)),
        "fast_tokens_per_second": max(1, round(fast.computed_tokens / fast.duration.fast_seconds)),
    }


def _settings(platform: str) -> Settings:
    return resolve(PROJECT_ROOT / CONFIGS[platform]).settings


def _planned(settings: Settings, shape: ModelShape, platform: str, gpu: str = "") -> RunPlan:
    """Plan the project's stated job on a platform as such, with the stack that its own command runs."""
    from kit.plan.workload import full_length  # numpy

    judgement = Judgement(platform, "", CONFIGS[platform], "", "", (), Gpu(0, gpu, 0) if gpu else None)
    stack = stack_named(stack_run_on(platform), platform, elsewhere=True)
    device = device_for(settings, judgement, _ANYWHERE, stack)
    return plan_run(settings, shape, device, full_length(settings, EXAMPLES))
