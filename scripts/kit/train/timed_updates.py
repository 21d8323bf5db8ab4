"""Time the first updates of a run under given settings, on a base that is already loaded. Imports torch."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from kit.config.platforms import CUDA_PLATFORMS
from kit.data.token_rows import NO_ROWS
from kit.modeling.model import attach_adapter
from kit.train.saving import MemoryMeter
from kit.train.trainer import build_trainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.config.settings import Settings
    from kit.data.batch_order import BatchOrder


class UpdateClock(TrainerCallback):  # type: ignore[misc]
    """Notes when each update has really ended on the device."""

    def __init__(self, platform: str) -> None:
        """Note nothing yet."""
        self._platform = platform
        self.ends: list[float] = []

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Note an update's end."""
        self.note()

    def note(self) -> None:
        """Note when all that was asked of the device is done."""
        if self._platform in CUDA_PLATFORMS:
            torch.cuda.synchronize()
        elif self._platform == "m4":
            torch.mps.synchronize()
        self.ends.append(time.perf_counter())


def time_updates(  # noqa: PLR0913, PLR0917 - what is trained, where, and for how long
    base: Any, settings: Settings, plan: BatchOrder, platform: str, updates: int, check_stop: Callable[[], None]
) -> tuple[list[float], int]:
    """Train the first ``updates`` of a run on a loaded base, then run its largest micro-batch.

    Last, unlike in a run: gradients and optimizer state exist by then, so what fits here fits the run.

    Returns:
        Seconds of each update after the first, and the peak, counted as a run's is.

    Raises:
        RehearsalError: The largest micro-batch does not fit.
    """
    if settings.training.torch_compile:
        torch.compiler.reset()  # what was compiled for others counts against the most that is kept
    clock, meter = UpdateClock(platform), MemoryMeter(platform)
    try:
        few = replace(plan, eval_rows=NO_ROWS, steps=updates)
        trainer = build_trainer(attach_adapter(base, settings), settings, few, platform, [clock])
        trainer.check_stop = check_stop
        trainer.train()
        largest = trainer.rehearse(trainer.model_wrapped)
        seconds = [end - begin for begin, end in pairwise(clock.ends)]
        return seconds, max(meter.peak(), largest.memory_bytes)
    finally:
        meter.close()
