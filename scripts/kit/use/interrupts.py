"""Ctrl-C in a conversation stops the answer, never the program."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Self


class Interrupts:
    """Raises ``KeyboardInterrupt`` inside ``listening``; one that comes in between waits for the next."""

    def __init__(self) -> None:
        """Start without a pending interrupt."""
        self._is_listening = False
        self._is_pending = False

    def __enter__(self) -> Self:
        """Take SIGINT over."""
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        signal.signal(signal.SIGINT, self._before)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_listening:
            # At once, so that a second Ctrl-C does not hit whoever handles the first.
            self._is_listening = False
            raise KeyboardInterrupt
        self._is_pending = True

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Raise ``KeyboardInterrupt`` in here where Ctrl-C comes, or came since the last time.

        To be used inside the ``try`` that catches it: it may come while this is entered or left.
        """
        try:
            self._is_listening = True
            if self._is_pending:
                self._is_pending = self._is_listening = False
                raise KeyboardInterrupt
            yield
        finally:
            self._is_listening = False
