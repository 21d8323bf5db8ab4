"""Signals to the command, as a terminal, `kill` and a batch system send them; docker and compose are stubs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from kit.cli.interpreter import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

# Stands for compose: it hears of no signal, and ends as its container does.
_COMPOSE = """#!/bin/sh
trap 'touch "{folder}/compose-was-hit"; exit 1' INT TERM
touch "{folder}/running"
while [ ! -s "{folder}/code" ]; do sleep 0.05; done
exit "$(cat "{folder}/code")"
"""
# Stands for docker, whose container saves and ends with the code of the signal.
_DOCKER = """#!/bin/sh
echo "$*" >>"{folder}/asked"
[ ! -e "{folder}/no-container" ] || exit 1
case "$2" in --signal=SIGINT) echo 130 ;; --signal=SIGUSR1) echo 138 ;; *) echo 143 ;; esac >"{folder}/code"
"""
_RUN = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is begun with it ignored
sys.path.insert(0, "scripts")
from kit.image.signals import run_passing_signals
raise SystemExit(run_passing_signals([sys.argv[1] + "/compose"], os.environ, sys.argv[1] + "/docker", "kit-train-1"))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("compose", _COMPOSE), ("docker", _DOCKER)):
        (tmp_path / name).write_text(text.format(folder=tmp_path))
        (tmp_path / name).chmod(0o755)
    return tmp_path


def stopped(folder: Path, number: int) -> int:
    """Start, send a signal to the whole process group as a terminal does, and return the exit code."""
    command = [sys.executable, "-c", _RUN, str(folder)]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, start_new_session=True) as process:
        deadline = time.monotonic() + 30
        while not (folder / "running").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, number)
        try:
            return process.wait(timeout=30)
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("number", "passed_on", "code"),
    [
        (signal.SIGINT, "SIGINT", 130),
        (signal.SIGTERM, "SIGTERM", 143),
        (signal.SIGHUP, "SIGTERM", 143),
        (signal.SIGUSR1, "SIGUSR1", 138),
    ],
)
def test_a_signal_goes_to_the_container_and_its_exit_code_comes_back(
    folder: Path, number: int, passed_on: str, code: int
) -> None:
    assert stopped(folder, number) == code
    assert (folder / "asked").read_text().splitlines() == [f"kill --signal={passed_on} kit-train-1"]
    assert not (folder / "compose-was-hit").exists()


def test_without_a_container_it_is_compose_that_is_stopped(folder: Path) -> None:
    (folder / "no-container").touch()
    assert stopped(folder, signal.SIGTERM) == 1
    assert (folder / "compose-was-hit").exists()


def test_a_run_that_ends_by_itself_gives_its_exit_code(folder: Path) -> None:
    (folder / "code").write_text("3")
    command = [sys.executable, "-c", _RUN, str(folder)]
    assert subprocess.run(command, cwd=PROJECT_ROOT, check=False, timeout=30).returncode == 3


def test_nohup_outlives_its_terminal(folder: Path) -> None:
    command = ["sh", "-c", 'trap "" HUP; exec "$0" "$@"', sys.executable, "-c", _RUN, str(folder)]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, start_new_session=True) as process:
        while not (folder / "running").exists() and process.poll() is None:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGHUP)
        (folder / "code").write_text("0")
        assert process.wait(timeout=30) == 0
    assert not (folder / "asked").exists()
