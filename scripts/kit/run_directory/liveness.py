"""Whether a run whose receipt says ``training`` is alive: by its process if visible from here, else by its last write.

The receipt alone cannot tell: a process that was killed, or a machine that lost power, leaves it at ``training``.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import psutil

from kit.cli.findings import error
from kit.files.numbers import mapping, number
from kit.run_directory.process import boot_id, pid_namespace, start_ticks

if TYPE_CHECKING:
    from pathlib import Path

    from kit.cli.findings import Finding
    from kit.files.folder_lock import FolderLock
    from kit.run_directory.history import Run

UNDER_WAY = ("started", "training")
KILLED = "killed?"
RESUME_HINT = "repeat the command with --resume auto (make: RESUME=auto) to resume from the last checkpoint"
# A process that cannot be seen from here, such as one in a container, is believed for this long after its last write:
# loading a large model, or an evaluation, writes nothing for minutes.
_SILENCE_S = 15 * 60.0
_CLOCK_S = 5.0  # what adjusting a clock moves the time a machine says it was started


def state_of(run: Run) -> str:
    """Return the receipt's state, or ``killed?`` if it is not final and no process is at work."""
    if run.state not in UNDER_WAY or is_alive(run.receipt, run.folder):
        return run.state
    return KILLED


def is_alive(receipt: dict[str, Any], folder: Path) -> bool:
    """Tell whether a run without a final state is alive."""
    process = mapping(receipt.get("process"))
    if _is_visible(process):
        return _is_running(process)
    return _seconds_since_last_write(folder) < _SILENCE_S


def is_this_process(process: dict[str, Any]) -> bool:
    """Tell whether a receipt names this process; clock changes do not matter."""
    return process.get("pid") == os.getpid() and _is_visible(process) and _is_running(process)


def _is_visible(process: dict[str, Any]) -> bool:
    """Tell whether the process's number is one of ours: same machine, not restarted since, no container between."""
    here, there = boot_id(), process.get("boot_id")
    if here and there:
        same_machine = here == there
    else:
        started = number(process.get("machine_started"))
        same_machine = started is not None and abs(started - psutil.boot_time()) < _CLOCK_S
    return same_machine and process.get("namespace") == pid_namespace() and isinstance(process.get("pid"), int)


def _is_running(process: dict[str, Any]) -> bool:
    try:
        there = psutil.Process(process["pid"])
        # Numbers are used again: the process must also be as old as the one that wrote the receipt.
        ticks = start_ticks(there.pid)
        if ticks is not None and process.get("start_ticks") is not None:
            same = ticks == process["start_ticks"]
        else:
            same = abs(there.create_time() - (number(process.get("created")) or 0.0)) < _CLOCK_S
        return same and there.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError, OverflowError):
        return False


def _seconds_since_last_write(folder: Path) -> float:
    written = [path.stat().st_mtime for path in (folder / "run.json", folder / "metrics.jsonl") if path.exists()]
    return time.time() - max(written, default=0.0)


def take_run_lock(lock: FolderLock) -> list[Finding]:
    """Lock a run directory, or say who has it.

    Raises:
        OSError: The folder cannot be written to.
    """
    holder = lock.acquire()
    if holder is None:
        return []
    fix = "wait for it, stop it, or rename this run: training.run_name=…"
    if holder.file:
        fix += f"; if that process no longer runs: rm {holder.file}"
    message = f"another run is using this directory ({holder.name or 'it has just started'})"
    return [error("run.locked", message, fix, str(lock.path.parent))]
