"""The process of a run, named so that another one can find out whether it still runs."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import psutil


def this_process() -> dict[str, Any]:
    """Name this process so that another one can find out whether it still runs; for the receipt."""
    return {
        "pid": os.getpid(),
        "created": psutil.Process().create_time(),
        "machine_started": psutil.boot_time(),
        "namespace": pid_namespace(),
    }


def pid_namespace() -> str | None:
    """Return where this process's number counts; None where the system has no such thing."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - what it points to is no path
    return None
