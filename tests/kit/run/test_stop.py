"""A signal asks for a clean end; a second one ends at once."""

from __future__ import annotations

import io
import os
import signal
import sys
import time

import pytest

from kit.run.stop import StoppedError, StopRequest

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)]


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_is_kept_until_somebody_asks(number: signal.Signals, code: int) -> None:
    with StopRequest().listening() as stop:
        stop.has_something_to_save = True
        stop.check()
        assert stop.exit_code == 0
        signal.raise_signal(number)
        assert stop.exit_code == code
        with pytest.raises(StoppedError):
            stop.check()


@pytest.mark.parametrize(("number", "code"), CODES)
def test_before_there_is_something_to_save_a_signal_ends_the_run_where_it_stands(
    number: signal.Signals, code: int
) -> None:
    with StopRequest().listening() as stop:
        with pytest.raises(StoppedError):
            signal.raise_signal(number)
        assert stop.exit_code == code


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
        with StopRequest().listening() as stop:
            stop.has_something_to_save = True
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
        stop.has_something_to_save = True
        print("step 7", file=sys.stderr)
        assert stop.exit_code == 143
    assert "SIGTERM: saving, then stopping" in capfd.readouterr().err
