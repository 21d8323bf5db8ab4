"""Room for the next checkpoint: asked before a run, and before each save. Imports no torch."""

from __future__ import annotations

import errno
import shutil
from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, ok, warning
from kit.model.shape import shape_of

if TYPE_CHECKING:
    from pathlib import Path

    from kit.config.settings import Settings

# Random generators, manifest, metrics so far and a few small files.
_SMALL_FILES = 4_000_000


def adapter_file_bytes(settings: Settings) -> int | None:
    """Size of the saved adapter; None where the model's shape is not known."""
    shape = shape_of(settings.model)
    if shape is None:
        return None
    width = {"float32": 4, "bfloat16": 2}[settings.lora.adapter_dtype]
    return shape.lora_parameters(settings.lora.r, settings.lora.target_modules) * width


def checkpoint_bytes(settings: Settings) -> int | None:
    """Size of one checkpoint, at most: adapter and two moments of 32 bits for each of its weights.

    0.50 GB for Mistral-7B with r=16 on all seven modules.
    """
    adapter = adapter_file_bytes(settings)
    if adapter is None:
        return None
    width = {"float32": 4, "bfloat16": 2}[settings.lora.adapter_dtype]
    return adapter + adapter // width * 8 + _SMALL_FILES


def free_bytes(folder: Path) -> int:
    """Free space on the disk a folder is, or will be, on."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def space_findings(settings: Settings) -> list[Finding]:
    """Check that what the run will write fits: the next checkpoint must, all that are kept should."""
    folder = settings.run_directory
    one, adapter = checkpoint_bytes(settings), adapter_file_bytes(settings)
    if one is None or adapter is None:
        return []
    free, least = free_bytes(folder), one + adapter
    # A new one is written whole before the oldest goes.
    most = (settings.training.save_total_limit + 1) * one + adapter
    room = f"{free / 1e9:,.2f} GB free"
    fix = "free some space, or training.output_dir=… on another disk"
    if free < least:
        message = f"{room}, and one checkpoint with the adapter takes up to {least / 1e9:,.2f} GB"
        return [error("run.disk_space", message, fix, str(folder))]
    if free < most:
        keep = f"{settings.training.save_total_limit} checkpoints, the next one and the adapter"
        message = f"{room}, and {keep} take up to {most / 1e9:,.2f} GB"
        return [warning("run.disk_space", message, f"{fix}; or training.save_total_limit=1", str(folder))]
    return [ok("run.disk_space", f"{room} for checkpoints of up to {one / 1e9:,.2f} GB", str(folder))]


def require(folder: Path, needed: int) -> None:
    """Make sure that a checkpoint fits before the first byte of it is written.

    Raises:
        OSError: It does not (ENOSPC).
    """
    free = free_bytes(folder)
    if free < needed:
        message = f"no space left on device: a checkpoint takes {needed:,} bytes and {free:,} are free"
        raise OSError(errno.ENOSPC, message, str(folder))
