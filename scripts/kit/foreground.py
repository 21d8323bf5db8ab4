"""A process in the foreground: waited for, with signals passed on to it; and Ctrl-C at the terminal it is at.

Standard library only, and for Python 3.9 on.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable


# What asks a program to end: SIGUSR1 is what batch systems send before they take a machine back, SIGHUP what a
# connection that is lost does.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
EXIT_CODES = frozenset(128 + number for number in SIGNALS)


def ignore_signals() -> None:
    """Take no further signal: launchers send them again until a process is gone, and its exit code is decided."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def wait_for(
    process: subprocess.Popen[bytes], signals: Iterable[signal.Signals], pass_on: Callable[[int, object], None]
) -> int:
    """Wait for a process to end.

    Args:
        process: It should have a session of its own: Ctrl-C reaches a whole process group.
        signals: Which are taken meanwhile. One that is ignored stays so: nohup, and a shell's background jobs.
        pass_on: Called with the number of one that came.

    Returns:
        Its exit code; 128 and the signal's number where one ended it.
    """
    heard = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heard}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code


class CtrlC:
    """Tells who presses Ctrl-C a second time from a launcher that hands on the first one.

    A terminal sends SIGINT to every process of its foreground group, and a launcher among them sends it on.
    """

    HANDED_ON_S = 1.0

    def __init__(self) -> None:
        """Begin without one."""
        self._first: float | None = None

    def press(self) -> str:
        """Count a SIGINT that has come.

        Returns:
            ``first`` and ``again`` for one that was pressed, ``handed on`` for the first one come twice; empty where
            nobody sits at a terminal.
        """
        if not any(_is_in_front_of(stream) for stream in (0, 2)):
            return ""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            return "first"
        return "again" if now - self._first > self.HANDED_ON_S else "handed on"


def _is_in_front_of(stream: int) -> bool:
    """Tell whether a stream is the terminal that this process is in the foreground of."""
    try:
        return os.isatty(stream) and os.tcgetpgrp(stream) == os.getpgrp()
    except OSError:  # another session's terminal
        return False
