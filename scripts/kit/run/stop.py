"""The wish to stop: a signal asks for a clean end, a second one ends at once."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# SIGUSR1 is what batch systems send before they take a machine back.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def _say(text: str) -> None:
    """Talk out of a signal's handler: the stream may be in the middle of a line, and refuses then."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


class StoppedError(BaseException):
    """A signal asked for the end. Not an ``Exception``: nothing on the way may take it for a failure."""


class StopRequest:
    """Takes SIGINT, SIGTERM and SIGUSR1 as the wish to stop.

    The wish is kept, and the trainer ends between two micro-batches. While the model is loaded there is nothing to
    save: then, between ``raise_from_now_on`` and ``keep_from_now_on``, it ends the run where it stands. A second signal
    ends the process at once; what is saved is whole, because it is whole at any moment.

    Attributes:
        signal: The first that came.
        has_cut_in: It was raised into whatever ran. A library that is cut off anywhere may leave its state by halves,
            or turn the end into a failure of its own: what fails afterwards is no failure of the run.
    """

    def __init__(self) -> None:
        """Start without a wish."""
        self.signal: int | None = None
        self.has_cut_in = False
        self._raises = False

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take the signals while the run is under way, and keep them at first."""
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def raise_from_now_on(self) -> None:
        """End where the run stands, at a signal from here on or one that came before. Call it where that is caught.

        Raises:
            StoppedError: One came before.
        """
        self._raises = True
        self.check()

    def keep_from_now_on(self) -> None:
        """Leave it to ``check`` where a signal ends the run."""
        self._raises = False

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.signal is not None:
            _say(f"{name}: stopping at once; what was saved before is whole")
            os._exit(128 + number)
        self.signal = number
        if self._raises:
            self.has_cut_in = True
            raise StoppedError
        _say(f"{name}: saving, then stopping; once more stops at once")

    def check(self) -> None:
        """End here where a signal asked for it.

        Raises:
            StoppedError: It did.
        """
        if self.signal is not None:
            raise StoppedError

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM, 138 after SIGUSR1, 0 without a wish."""
        return 0 if self.signal is None else 128 + self.signal
