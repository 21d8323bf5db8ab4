"""A signal asks for a clean end; a second one ends at once."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from typing import Any

import pytest

from kit.run.stop import StoppedError, StopRequest

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)]


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_is_kept_until_somebody_asks(number: signal.Signals, code: int) -> None:
    with StopRequest().listening() as stop:
        stop.check()
        assert stop.exit_code == 0
        signal.raise_signal(number)
        assert stop.exit_code == code
        with pytest.raises(StoppedError):
            stop.check()


@pytest.mark.parametrize(("number", "code"), CODES)
def test_while_there_is_nothing_to_save_a_signal_ends_the_run_where_it_stands(
    number: signal.Signals, code: int
) -> None:
    with StopRequest().listening() as stop:
        stop.raise_from_now_on()
        with pytest.raises(StoppedError):
            signal.raise_signal(number)
        assert stop.exit_code == code
        assert stop.has_cut_in


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_that_comes_while_the_handlers_are_set_is_kept(
    number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came out of the ``with`` that nothing was around, and ended the run as a bug does: exit code 70."""
    install, sent = signal.signal, []

    def install_and_send(which: int, handler: Any) -> Any:
        before = install(which, handler)
        if which == number and not sent:
            sent.append(number)
            signal.raise_signal(number)
        return before

    monkeypatch.setattr(signal, "signal", install_and_send)
    with StopRequest().listening() as stop:
        assert stop.exit_code == code
        with pytest.raises(StoppedError):
            stop.raise_from_now_on()
        assert not stop.has_cut_in


def test_once_it_is_kept_a_signal_cuts_in_nowhere() -> None:
    with StopRequest().listening() as stop:
        stop.raise_from_now_on()
        stop.keep_from_now_on()
        signal.raise_signal(signal.SIGTERM)
        assert (stop.exit_code, stop.has_cut_in) == (143, False)


def test_the_handlers_before_are_put_back() -> None:
    before = [signal.getsignal(number) for number, _ in CODES]
    with StopRequest().listening():
        assert [signal.getsignal(number) for number, _ in CODES] != before
    assert [signal.getsignal(number) for number, _ in CODES] == before


def test_no_failure_handler_takes_the_stop_for_a_failure() -> None:
    assert not issubclass(StoppedError, Exception)


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_second_signal_ends_the_process_at_once(number: signal.Signals, code: int) -> None:
    child = os.fork()
    if child == 0:
        with StopRequest().listening():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(number)
            time.sleep(60)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code


def test_a_signal_may_come_in_the_middle_of_a_line_that_is_written(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A buffer that is being written to refuses to be written to by a handler: that was taken for the run's failure."""

    class Interrupted(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            if stop.signal is None:
                signal.raise_signal(signal.SIGTERM)
            return len(memoryview(data))  # type: ignore[arg-type]

    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(Interrupted()), line_buffering=True))
    with StopRequest().listening() as stop:
        print("step 7", file=sys.stderr)
        assert stop.exit_code == 143
    assert "SIGTERM: saving, then stopping" in capfd.readouterr().err
