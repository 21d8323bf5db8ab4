"""Run a process in the foreground and pass signals on to it; recognise Ctrl-C at its terminal.

Standard library only, and for Python 3.9 on.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType


# What asks a program to end: SIGUSR1 is what batch systems send before they take a machine back, SIGHUP what a
# connection that is lost does.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
EXIT_CODES = frozenset(128 + number for number in SIGNALS)


class TerminatedError(SystemExit):
    """A signal ends this process: what it holds is released on the way out, as at Ctrl-C."""

    def __init__(self, number: int) -> None:
        """Keep the signal's number in the exit code."""
        super().__init__(128 + number)
        self.number = number


def exit_on_signals() -> None:
    """Have signals end this process as Ctrl-C does, from here on; one that is ignored stays so, under nohup."""
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    ignore_signals()  # the next one must not end the tidying up
    raise TerminatedError(number)


def ignore_signals(numbers: Iterable[int] = SIGNALS) -> None:
    """Take no further signal: launchers send them again until a process is gone, and its exit code is decided."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def taking(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Hand signals to a handler for a while.

    Where one came, the process is about to end, and none is taken any more afterwards: between this and the end, the
    next one of a launcher's would be the exit code.
    """
    came = []

    def hear(number: int, frame: FrameType | None) -> None:
        came.append(number)
        handler(number, frame)

    before = {number: signal.signal(number, hear) for number in numbers}
    try:
        yield
    finally:
        if came:
            ignore_signals(before)
        else:
            for number, earlier in before.items():
                signal.signal(number, earlier)


def wait_for(
    start: Callable[[], subprocess.Popen[bytes]],
    signals: Iterable[int],
    pass_on: Callable[[subprocess.Popen[bytes], int], None],
) -> int:
    """Start a process and wait for its end, passing on ``signals``; ignored ones stay ignored (nohup).

    ``start`` begins a new session, since Ctrl-C reaches a whole process group.

    Returns:
        Its exit code; 128 and the signal's number where one ended it.
    """
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def hear(number: int, _frame: FrameType | None) -> None:
        if process is None:
            early.append(number)
        else:
            pass_on(process, number)

    with taking([number for number in signals if signal.getsignal(number) is not signal.SIG_IGN], hear):
        process = start()
        for number in early:
            pass_on(process, number)
        code = process.wait()
    return 128 - code if code < 0 else code


class CtrlC:
    """Tells who presses Ctrl-C a second time from a launcher that hands on the first one.

    A terminal sends SIGINT to every process of its foreground group, and a launcher among them sends it on.
    """

    HANDED_ON_S = 1.0

    def __init__(self) -> None:
        """Start with none pressed."""
        self._first: float | None = None

    def handle(self) -> str:
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
