"""Forked children: their exit codes come back, a hung one is ended, and no thread's lock is taken along."""

from __future__ import annotations

import os
import signal
import time

import pytest
from tqdm import TMonitor, tqdm

from torture.forked import end_threads, exit_code_of


def _fork(code: int = 0, *, hangs: bool = False) -> int:
    child = os.fork()
    if child == 0:
        while hangs:
            time.sleep(1)
        os._exit(code)
    return child


def test_an_exit_code_and_a_signal_come_back() -> None:
    assert exit_code_of(_fork(7)) == 7
    child = _fork(hangs=True)
    os.kill(child, signal.SIGTERM)
    assert exit_code_of(child) == -signal.SIGTERM


def test_a_child_that_hangs_is_ended_and_reported() -> None:
    child = _fork(hangs=True)
    with pytest.raises(RuntimeError, match="hung"):
        exit_code_of(child, longest_seconds=0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_the_bars_monitor_is_gone_before_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = TMonitor(tqdm, 10)
    assert monitor.is_alive()
    monkeypatch.setattr(tqdm, "monitor", monitor)
    end_threads()
    assert not monitor.is_alive()
    assert tqdm.monitor is None
    assert tqdm.monitor_interval == 0
