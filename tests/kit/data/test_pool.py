"""Work on many chunks: results in order, nothing read far ahead, and a worker's end is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.data.pool import WorkerDiedError, in_order, processes_for

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_results_come_in_order_from_one_process_and_from_several() -> None:
    chunks = [str(number) for number in range(60)]
    assert list(in_order(int, chunks, 1)) == list(range(60))
    assert list(in_order(int, chunks, 2)) == list(range(60))


def test_little_is_read_ahead() -> None:
    read: list[int] = []

    def chunks() -> Iterator[str]:
        for number in range(1000):
            read.append(number)
            yield str(number)

    for result in in_order(int, chunks(), 2):
        assert len(read) - result < 24


def test_a_few_chunks_start_no_process() -> None:
    assert set(in_order(_process, range(3), 4)) == {os.getpid()}


def test_many_chunks_are_shared_among_processes() -> None:
    assert set(in_order(_process, range(40), 2)) - {os.getpid()}


def test_a_killed_worker_is_said_and_not_waited_for() -> None:
    with pytest.raises(WorkerDiedError, match="killed"):
        list(in_order(_die_elsewhere, [os.getpid()] * 40, 2))


GROUP = f"""
import os, sys
sys.path.insert(0, {str(PROJECT_ROOT / "scripts")!r})
from kit.cli.command import run_main
from kit.data.pool import in_order
def main():
    for number, _ in enumerate(in_order(int, map(str, range(200)), 2)):
        if number == 100:
            os.killpg(os.getpid(), int(sys.argv[1]))
run_main(main)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGUSR1, 138), (signal.SIGTERM, 143)])
def test_a_signal_to_all_of_its_processes_ends_in_one_sentence(number: signal.Signals, code: int) -> None:
    """A closed window ended what multiprocessing starts beside the workers, which Python told by tracebacks."""
    command = [sys.executable, "-c", GROUP, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, start_new_session=True)
    assert (done.returncode, done.stderr) == (code, f"{number.name}: stopped\n")


def test_processes_are_as_many_as_asked_or_cores() -> None:
    assert processes_for(3) == 3
    assert 1 <= processes_for() <= 16


def _process(_chunk: int) -> int:
    return os.getpid()


def _die_elsewhere(home: int) -> None:
    if os.getpid() != home:
        os.kill(os.getpid(), signal.SIGKILL)
