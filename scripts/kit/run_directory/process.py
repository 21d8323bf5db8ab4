"""The process of a run, named so that another one can find out whether it still runs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import psutil


def this_process() -> dict[str, Any]:
    """Identify this process, for the receipt."""
    return describe_process(os.getpid())


def describe_process(number: int) -> dict[str, Any]:
    """Identify a process of this machine by its PID.

    Returns:
        ``pid``; ``created`` and ``machine_started``, in seconds since 1970 by a clock that may be set meanwhile;
        ``boot_id`` and ``start_ticks``, which no clock moves, and which are None where the system has no such thing;
        ``namespace``, where the number counts.

    Raises:
        psutil.Error: There is no such process.
    """
    return {
        "pid": number,
        "created": psutil.Process(number).create_time(),
        "machine_started": psutil.boot_time(),
        "boot_id": boot_id(),
        "start_ticks": start_ticks(number),
        "namespace": pid_namespace(),
    }


def boot_id() -> str | None:
    """Return what names this machine since it was started (Linux)."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return None


def start_ticks(number: int) -> int | None:
    """Return when a process was started, in clock ticks since the machine was (Linux); None where it is gone."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The name, in brackets, may hold anything; behind it come numbers.
        fields = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19])
    return None


def pid_namespace() -> str | None:
    """Return where this process's number counts; None where the system has no such thing."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - what it points to is no path
    return None
