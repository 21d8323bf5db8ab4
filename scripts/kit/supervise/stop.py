"""Stop requests: a signal stops cleanly; a second Ctrl-C at a terminal stops at once."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from kit.cli.foreground import SIGNALS, CtrlC, taking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SAVING = "saving, then stopping"


def _say(text: str) -> None:
    """Print from a signal handler; a stream in the middle of a write refuses, and is ignored."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


class StoppedError(BaseException):
    """A signal asked to stop. Not an ``Exception``, so that no handler takes it for a failure."""


class StopRequest:
    """Takes SIGINT, SIGTERM, SIGUSR1 and SIGHUP as requests to stop.

    The request is kept, and the trainer ends between two micro-batches. While the model is loaded there is nothing to
    save: then, between ``raise_on_signal`` and ``defer_signals``, it ends the run where it stands. Batch systems,
    launchers and container engines say it several times and by several signals: once it is known, that changes
    nothing. Only a second Ctrl-C at a terminal ends the process at once; what is saved is whole at any moment.

    Attributes:
        has_raised: It was raised into whatever ran. A library cut off anywhere may leave its state inconsistent,
            or turn the end into a failure of its own: what fails afterwards is no failure of the run.
        answer: Printed at the next signal.
    """

    def __init__(self) -> None:
        """Start without a request."""
        self.signal: int | None = None
        self.has_raised = False
        self.answer = SAVING
        self._raises = False
        self._ctrl_c = CtrlC()

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take the signals while the run is under way, and keep them at first. nohup's SIGHUP stays ignored."""
        outlives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        with taking([number for number in SIGNALS if number != signal.SIGHUP or not outlives], self._receive):
            yield self

    def raise_on_signal(self) -> None:
        """End where the run stands, at a signal from here on or one that came before. Call it where that is caught.

        Raises:
            StoppedError: One came before.
        """
        self._raises = True
        self.check()

    def defer_signals(self) -> None:
        """Leave it to ``check`` where a signal ends the run."""
        self._raises = False

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        name, is_first = signal.Signals(number).name, self.signal is None
        ctrl_c = self._ctrl_c.handle() if number == signal.SIGINT else ""
        if ctrl_c == "again":
            _say(f"{name}: stopping at once; earlier checkpoints are complete")
            os._exit(128 + number)
        if is_first:
            self.signal = number
            if self._raises:
                self.has_raised = True
                raise StoppedError
        if is_first or ctrl_c == "first":
            _say(f"{name}: {self.answer}{'; press Ctrl-C again to stop at once' if ctrl_c else ''}")

    def check(self) -> None:
        """End here where a signal asked for it.

        Raises:
            StoppedError: It did.
        """
        if self.signal is not None:
            raise StoppedError

    @property
    def name(self) -> str:
        """The signal that asked first, such as ``SIGTERM``; empty without a request."""
        return "" if self.signal is None else signal.Signals(self.signal).name

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM, 138 after SIGUSR1, 129 after SIGHUP, 0 without a request."""
        return 0 if self.signal is None else 128 + self.signal
