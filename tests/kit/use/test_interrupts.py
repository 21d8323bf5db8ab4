"""Ctrl-C in a conversation: heard where somebody listens, kept where nobody does, never twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from kit.use.interrupts import Interrupts


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    with Interrupts() as taken:
        yield taken


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):  # Python hears of a signal between two instructions
        pass


def test_it_is_raised_where_somebody_listens(interrupts: Interrupts) -> None:
    with pytest.raises(KeyboardInterrupt), interrupts.listening():
        press()


def test_in_between_it_is_kept_for_the_next_one_and_heard_once(interrupts: Interrupts) -> None:
    press()
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts.listening():
        done.append("worked")
    with interrupts.listening():
        done.append("answered")
    assert done == ["answered"]


def test_a_second_one_does_not_hit_whoever_handles_the_first(interrupts: Interrupts) -> None:
    handled = False
    try:
        with interrupts.listening():
            press()
    except KeyboardInterrupt:
        press()
        handled = True
    assert handled


def test_what_was_there_before_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
