"""Forking a process that has imported everything already, and waiting for the child without waiting for ever."""

from __future__ import annotations

import os
import signal
import time

from tqdm import tqdm

LONGEST_SECONDS = 300.0


def end_threads() -> None:
    """End tqdm's monitor before a fork: a thread does not live on in the child, but a lock it held stays shut there."""
    tqdm.monitor_interval = 0
    if tqdm.monitor is not None:
        tqdm.monitor.exit()  # type: ignore[no-untyped-call]
        tqdm.monitor = None


def exit_code_of(child: int, longest_seconds: float = LONGEST_SECONDS) -> int:
    """Wait for a child and return its exit code, negative for a signal.

    Raises:
        RuntimeError: It hung, and was killed.
    """
    deadline = time.monotonic() + longest_seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise RuntimeError(f"the forked process hung, and was killed after {longest_seconds:.0f} s")
        time.sleep(0.005)
