"""Run the machine's own tools (nvidia-smi, sysctl, …) with a time-out.

Standard library only, for Python 3.9 and later.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from kit.cli.screen import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# How long a killed tool may take to end. One stuck inside the driver never does.
_GRACE_S = 0.5
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class ToolOutput:
    """A tool's standard output, or the problem that left none."""

    output: str = ""
    problem: str = ""
    found: bool = True
    timed_out: bool = False


def ask(command: Sequence[str], timeout_s: float) -> ToolOutput:
    """Run a tool for at most ``timeout_s`` seconds and a short grace, and return what it printed."""
    name = command[0]
    path = shutil.which(name)
    if path is None:
        return ToolOutput(problem=f"{name} is not on PATH", found=False)
    # A C locale keeps decimal points points; SYSTEM_VERSION_COMPAT=0 keeps macOS from naming an older version.
    environment = {**os.environ, "LC_ALL": "C", "SYSTEM_VERSION_COMPAT": "0"}
    try:
        process = subprocess.Popen(
            [path, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
    except OSError as exc:
        return ToolOutput(problem=f"{name} cannot be started: {exc.strerror or exc}")
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _give_up(process)
        return ToolOutput(problem=f"{name} did not answer within {timeout_s:g} s", timed_out=True)
    text = output.decode("utf-8", errors="replace")
    if process.returncode != 0:
        said = (errors.decode("utf-8", errors="replace").strip() or text.strip()).splitlines()
        why = f": {one_line(said[0].strip())}" if said else ""
        return ToolOutput(problem=f"{name} failed with exit code {process.returncode}{why}")
    return ToolOutput(output=text)


def within(timeout_s: float, call: Callable[[], _Answer]) -> list[_Answer]:
    """Make a call that raises nothing but that a hung driver may block; return its answer, or none after the time."""
    answers: list[_Answer] = []
    # A daemon thread lets the process end all the same.
    thread = threading.Thread(target=lambda: answers.append(call()), daemon=True)
    thread.start()
    thread.join(timeout_s)
    return answers


def _give_up(process: subprocess.Popen[bytes]) -> None:
    """Kill the tool and its children, without waiting for one that cannot be killed."""
    # subprocess.run would wait for ever if the tool hangs in the driver or a child holds its pipes.
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=_GRACE_S)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
