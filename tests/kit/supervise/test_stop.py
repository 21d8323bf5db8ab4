"""A signal asks for a clean end, however often it is sent; Ctrl-C a second time at a terminal ends at once."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from kit.cli.foreground import SIGNALS, CtrlC, wait_for
from kit.cli.interpreter import PROJECT_ROOT
from kit.supervise.stop import StoppedError, StopRequest
from terminal import INTERRUPT, Terminal

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)]


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
        stop.raise_on_signal()
        with pytest.raises(StoppedError):
            signal.raise_signal(number)
        assert stop.exit_code == code
        assert stop.has_raised


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
            stop.raise_on_signal()
        assert not stop.has_raised


def test_once_it_is_kept_a_signal_cuts_in_nowhere() -> None:
    with StopRequest().listening() as stop:
        stop.raise_on_signal()
        stop.defer_signals()
        signal.raise_signal(signal.SIGTERM)
        assert (stop.exit_code, stop.has_raised) == (143, False)


def test_the_handlers_before_are_put_back() -> None:
    before = [signal.getsignal(number) for number, _ in CODES]
    with StopRequest().listening():
        assert [signal.getsignal(number) for number, _ in CODES] != before
    assert [signal.getsignal(number) for number, _ in CODES] == before


@pytest.mark.parametrize(("number", "code"), CODES)
def test_between_the_run_and_the_end_of_its_process_no_signal_is_taken(number: signal.Signals, code: int) -> None:
    """The handlers before were put back, and what a launcher sends until a process is gone ended it by a signal."""
    script = f"""
import os, sys
sys.path.insert(0, {str(PROJECT_ROOT / "scripts")!r})
from kit.cli.command import run_main
from kit.cli.foreground import SIGNALS
from kit.supervise.stop import StopRequest
def main():
    with StopRequest().listening() as stop:
        os.kill(os.getpid(), {number:d})
    for again in SIGNALS:
        os.kill(os.getpid(), again)
    return stop.exit_code
run_main(main)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == code


@pytest.mark.parametrize(("number", "code"), CODES)
def test_nor_is_one_taken_behind_a_process_that_was_waited_for(number: signal.Signals, code: int) -> None:
    script = f"""
import os, subprocess, sys
sys.path.insert(0, {str(PROJECT_ROOT / "scripts")!r})
from kit.cli.command import run_main
from kit.cli.foreground import SIGNALS, wait_for
def main():
    def start():
        return subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getppid(), {number:d}); input()"],
                                stdin=subprocess.PIPE, start_new_session=True)
    code = wait_for(start, SIGNALS, lambda child, number: child.send_signal(number))
    for again in SIGNALS:
        os.kill(os.getpid(), again)
    return code
run_main(main)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, stderr=subprocess.DEVNULL).returncode == code


def test_a_process_that_is_being_started_hears_of_a_signal_once_it_runs() -> None:
    """Between its start and the handlers the signal ended the one that waits, and the other went on by itself."""
    children = []

    def start() -> subprocess.Popen[bytes]:
        children.append(subprocess.Popen(["sleep", "60"]))
        signal.raise_signal(signal.SIGTERM)
        return children[0]

    code = wait_for(start, SIGNALS, lambda child, number: child.send_signal(number))
    assert (code, children[0].returncode) == (143, -signal.SIGTERM)


def test_no_failure_handler_takes_the_stop_for_a_failure() -> None:
    assert not issubclass(StoppedError, Exception)


@pytest.mark.parametrize(("number", "code"), CODES)
def test_signals_that_are_repeated_in_any_mix_change_nothing(
    number: signal.Signals, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with StopRequest().listening() as stop:
        for _ in range(3):
            for each in (number, *(other for other, _ in CODES)):
                signal.raise_signal(each)
        assert stop.exit_code == code
    said = capfd.readouterr().err
    assert said == f"{number.name}: saving, then stopping\n"  # and nothing of Ctrl-C, where nobody sits at a terminal


def test_one_that_follows_a_stop_that_has_cut_in_does_not_cut_in_again() -> None:
    with StopRequest().listening() as stop:
        stop.raise_on_signal()
        with pytest.raises(StoppedError):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGUSR1)
        assert stop.exit_code == 143


def test_nohups_ignored_sighup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest().listening() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.exit_code == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


AT_A_TERMINAL = f"""
import sys, time
sys.path.insert(0, {str(PROJECT_ROOT / "scripts")!r})
from kit.supervise.stop import StopRequest
with StopRequest().listening() as stop:
    print("listens", flush=True)
    while stop.signal is None:
        time.sleep(0.01)
    time.sleep(60)
"""


def test_ctrl_c_pressed_again_at_a_terminal_ends_the_process_at_once() -> None:
    with Terminal([sys.executable, "-c", AT_A_TERMINAL]) as terminal:
        terminal.wait_for("listens")
        terminal.type(INTERRUPT)
        terminal.wait_for("SIGINT: saving, then stopping; press Ctrl-C again to stop at once")
        time.sleep(CtrlC.HANDED_ON_S + 0.2)
        terminal.type(INTERRUPT)
        terminal.wait_for("SIGINT: stopping at once; earlier checkpoints are complete")
        assert terminal.exit_code() == 130


def test_a_ctrl_c_that_a_launcher_hands_on_is_not_pressed_again() -> None:
    with Terminal([sys.executable, "-c", AT_A_TERMINAL]) as terminal:
        terminal.wait_for("listens")
        terminal.type(INTERRUPT)
        terminal.wait_for("SIGINT: saving")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(terminal.pid, number)
        time.sleep(0.3)
        assert os.waitpid(terminal.pid, os.WNOHANG) == (0, 0)


def test_a_process_that_was_asked_to_end_hears_no_further_signal_on_its_way_out() -> None:
    """Python takes its own handlers back while it shuts down: a launcher's next signal was the exit code then."""
    script = f"""
import atexit, os, signal, sys
sys.path.insert(0, {str(PROJECT_ROOT / "scripts")!r})
from kit.cli.command import run_main
atexit.register(lambda: [os.kill(os.getpid(), number) for number in (1, 2, 15, 10)])
run_main(lambda: 143)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 143


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
