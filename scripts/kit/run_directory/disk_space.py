"""Room for the next checkpoint, asked before each save; before a run ``kit.checks.environment`` asks. No torch."""

from __future__ import annotations

import errno
from pathlib import Path

from kit.machine.probe import disk_free_bytes


def require(folder: Path, needed: int) -> None:
    """Make sure that a checkpoint fits before the first byte of it is written.

    Raises:
        OSError: It does not (ENOSPC).
    """
    free = disk_free_bytes(folder)
    if free is not None and free < needed:
        message = f"no space left on device: a checkpoint takes {needed:,} bytes and {free:,} are free"
        raise OSError(errno.ENOSPC, message, str(folder))
