"""Room for the next checkpoint, asked before each save; before a run ``kit.checks.environment`` asks. No torch."""

from __future__ import annotations

import errno
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def free_bytes(folder: Path) -> int:
    """Free space on the disk a folder is, or will be, on."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def require(folder: Path, needed: int) -> None:
    """Make sure that a checkpoint fits before the first byte of it is written.

    Raises:
        OSError: It does not (ENOSPC).
    """
    free = free_bytes(folder)
    if free < needed:
        message = f"no space left on device: a checkpoint takes {needed:,} bytes and {free:,} are free"
        raise OSError(errno.ENOSPC, message, str(folder))
