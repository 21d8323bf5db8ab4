"""What a run needs of the host's memory while its base loads, and of the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.plan.memory import adapter_bytes, optimizer_bytes
from kit.plan.overheads import PROCESS_BYTES

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.model.shape import ModelShape

_PUBLISHED_BYTES = 2  # of a parameter: weights are published in 16 bits
# A base is read file by file; the largest of Mistral-7B's, in its first release, is 9.9 of 14.5 GB.
_LARGEST_FILE = 0.69
# Random generators, manifest, metrics so far and a few small files of a checkpoint.
_SMALL_FILES = 4_000_000


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
