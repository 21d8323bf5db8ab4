"""Run one program in a process of its own and watch what it and its children take."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path

_FIRST_SECONDS, _EVERY_SECONDS = 0.01, 0.2
_LOOKING = 25  # of its time the watcher looks one part and sleeps the rest: it must not slow down what it measures
_WORDS_SHOWN = 300  # characters of a program's last words


@dataclass(frozen=True)
class Run:
    """One program on one file.

    Attributes:
        tool: Whose program.
        rows: Rows it prepared.
        tokens: Tokens in them.
        trained: Tokens the loss is taken on.
        seconds: From the file to prepared rows, imports not counted.
        cpu_seconds: What all cores worked for that together: the same on a busy machine as on an idle one, nearly.
        peak_bytes: Most memory of the process and its children together, pages they share counted once.
        failure: Why there are no numbers; empty where there are.
    """

    tool: str
    rows: int = 0
    tokens: int = 0
    trained: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    failure: str = ""

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds if self.seconds else 0.0


def run_program(tool: str, command: list[str], folder: Path, limit_seconds: float) -> Run:
    """Run a program that prints one JSON object at its end.

    Args:
        tool: Its name in the table.
        command: The program with its arguments.
        folder: For caches of its own, so that nothing is reused from an earlier run.
        limit_seconds: It is ended after that.
    """
    caches = {"HF_HOME": str(folder / "hub"), "HF_DATASETS_CACHE": str(folder / "datasets"), "HF_HUB_OFFLINE": "1"}
    quiet = {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "WANDB_DISABLED": "true", "DISABLE_VERSION_CHECK": "1"}
    environment = {**os.environ, **caches, **quiet, "PYTHONNOUSERSITE": "1"}
    log = folder / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=environment, start_new_session=True
        )
        peak = [0]
        watcher = threading.Thread(target=_watch, args=(process, peak), daemon=True)
        watcher.start()
        try:
            output, _ = process.communicate(timeout=limit_seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as exc:
            _end(process)
            if isinstance(exc, KeyboardInterrupt):
                raise
            return Run(tool, failure=f"took longer than {limit_seconds:.0f} s")
    lines = output.decode(errors="replace").strip().splitlines()
    if process.returncode or not lines:
        words = log.read_text(encoding="utf-8", errors="replace").strip()[-_WORDS_SHOWN:]
        return Run(tool, failure=f"exit code {process.returncode}: {' '.join(words.split())}")
    return Run(tool, peak_bytes=peak[0], **json.loads(lines[-1]))


def _watch(process: subprocess.Popen[bytes], peak: list[int]) -> None:
    # As often as it is old, up to a limit: a short run is looked at in its second half too.
    began = time.monotonic()
    while process.poll() is None:
        looked = time.monotonic()
        peak[0] = max(peak[0], memory_of(process.pid))
        took = time.monotonic() - looked
        time.sleep(max(_LOOKING * took, min(_EVERY_SECONDS, max(_FIRST_SECONDS, looked - began))))


def memory_of(number: int) -> int:
    """Sum the memory of a process and its children: proportional shares where the system tells them (Linux)."""
    total = 0
    try:
        parent = psutil.Process(number)
        family = [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return 0
    for member in family:
        try:
            info = member.memory_full_info()
            total += getattr(info, "pss", info.uss)
        except psutil.Error:  # gone in between
            continue
    return total


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        family = []
    process.kill()
    for member in family:
        try:
            member.kill()
        except psutil.Error:
            continue
    process.wait()
