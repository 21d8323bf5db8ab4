"""One forward and backward pass on the largest micro-batch of a run, before its first step, leaving no trace.

Out of memory then comes in the first minute, not when the longest row arrives. Imports torch.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kit.cli.refusals import is_out_of_memory
from kit.config.platforms import CUDA_PLATFORMS
from kit.machine import metal
from kit.machine.probe import usable_memory
from kit.modeling.process_memory import own_bytes
from kit.plan.after_oom import OutOfMemory, RehearsalError, asked_bytes
from kit.train.saving import MemoryMeter
from kit.train.state import RandomState


@dataclass(frozen=True)
class Rehearsal:
    """What the largest micro-batch took.

    Attributes:
        memory_bytes: The pass's peak, as ``peak_memory_bytes``, without optimizer state.
    """

    rows: int
    length: int
    memory_bytes: int


def largest_micro_batch(order: Sequence[int], lengths: Any, size: int, *, padding_free: bool) -> tuple[int, int]:
    """Return (where in ``order`` it begins, its computed tokens) for the micro-batch with the most tokens.

    Padded, a micro-batch costs its longest row times its rows; padding-free, the sum of its rows. ``lengths`` are in
    tokens, ``size`` in rows; ``order`` may hold ``FILLER``.
    """
    own = np.append(lengths, 1)[np.asarray(order)]  # FILLER is -1: the last
    begins = np.arange(0, len(own), size)
    longest = np.maximum.reduceat(own, begins) * np.diff(np.append(begins, len(own)))
    tokens = np.add.reduceat(own, begins) if padding_free else longest
    most = int(tokens.argmax())
    return most * size, int(tokens[most])


def rehearse(trainer: Any, model: Any, platform: str, begin: int, size: int) -> Rehearsal:
    """Work through ``size`` rows of the trainer's data set from ``begin`` on, then put everything back.

    Raises:
        RehearsalError: It does not fit; with the memory used and available.
    """
    randomness = RandomState.capture(platform)
    # trl averages what it logs over the passes since the last log.
    logged = {name: copy.deepcopy(getattr(trainer, name)) for name in _LOGGED if hasattr(trainer, name)}
    rows = [trainer.train_dataset[index] for index in range(begin, min(begin + size, len(trainer.train_dataset)))]
    length = max(len(row["input_ids"]) for row in rows)
    meter, standing = MemoryMeter(platform), in_use_bytes(platform)
    try:
        model.train()
        inputs = trainer._prepare_inputs(trainer.data_collator(rows))  # noqa: SLF001 - the step's own way
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(model, inputs)
        trainer.accelerator.backward(loss)
        return Rehearsal(len(rows), length, meter.read())
    except (RuntimeError, MemoryError) as exc:
        if not is_out_of_memory(exc):
            raise
        reached = meter.read() + asked_bytes(str(exc))
        raise RehearsalError(OutOfMemory(len(rows), length, standing, reached, room_bytes(platform))) from exc
    finally:
        meter.close()
        model.zero_grad(set_to_none=True)
        for name, value in logged.items():
            setattr(trainer, name, value)
        randomness.restore(platform)


def in_use_bytes(platform: str) -> int:
    """Return what this process holds now: allocated on CUDA, by Metal on MPS, of its own on a CPU."""
    if platform in CUDA_PLATFORMS:
        return int(torch.cuda.memory_allocated())
    if platform == "m4":
        return int(torch.mps.driver_allocated_memory())
    return own_bytes()


def room_bytes(platform: str) -> int:
    """Return all that the device has for this process: what it holds, and what is still free."""
    if platform in CUDA_PLATFORMS:
        return int(torch.cuda.memory_reserved() + torch.cuda.mem_get_info()[0])
    total, available = usable_memory()
    free = in_use_bytes(platform) + (available or 0)
    if platform != "m4":
        return free
    watermark = os.environ.get(metal.HIGH)
    return min(free, metal.allowed_bytes(torch.mps.recommended_max_memory(), watermark, total or free))


_LOGGED = ("_metrics", "_total_train_tokens")
