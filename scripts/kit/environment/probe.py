"""Collect an environment's facts: from the device probe, package metadata, locks and disks.

Only the child process imports torch; it gets no token and no key.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING

from packaging.utils import canonicalize_name

from kit.cli.interpreter import PROJECT_ROOT
from kit.cli.screen import one_line
from kit.environment import access_probe
from kit.environment.device_probe import STAGE_PREFIX
from kit.environment.facts import DeviceProbe, Environment, Lock, Stage
from kit.machine import probe as machine_probe
from kit.stacks.locks import packages
from kit.stacks.registry import GENERATIONS
from kit.stacks.stack import stack_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.config.settings import Settings

    OnStage = Callable[[Stage], None]

DEVICE_PROBE = Path(__file__).with_name("device_probe.py")
DEFAULT_MODEL = "mistralai/Mistral-7B-Instruct-v0.2"
# A first import from a cold disk takes a minute.
TIMEOUT_SECONDS = 300.0
_SECRET_NAME = re.compile(r"TOKEN|API_?KEY|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


def installed_versions() -> dict[str, str]:
    """Return every installed distribution's version by canonical name, from metadata alone."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        # The first on sys.path is the one that is imported.
        if name:
            found.setdefault(canonicalize_name(name), distribution.version)
    return dict(sorted(found.items()))


def read_lock(system: str, stack_name: str, root: Path = PROJECT_ROOT) -> Lock | None:
    """Read the lock of a stack on a system; None if there is none."""
    if stack_name not in GENERATIONS:
        return None
    lock = GENERATIONS[stack_name].lock_for("m4" if system == "Darwin" else system)
    try:
        return Lock(lock.target, packages((root / lock.target).read_text(encoding="utf-8")))
    except OSError:
        return None


def child_environment() -> dict[str, str]:
    """Return the child's environment variables: without secrets, with the Hub offline."""
    kept = {name: value for name, value in os.environ.items() if not _SECRET_NAME.search(name)}
    return {**kept, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}


def work_device(
    device: str = "auto",
    timeout_seconds: float = TIMEOUT_SECONDS,
    on_stage: OnStage | None = None,
    command: tuple[str, ...] | None = None,
) -> DeviceProbe:
    """Run the device probe as a child process; a failure is a result too.

    ``on_stage`` is called at each stage's start and end; ``command`` replaces the child in tests.
    """
    at_most = str(math.ceil(timeout_seconds) + 10)
    child = subprocess.Popen(
        command or (sys.executable, str(DEVICE_PROBE), "--device", device, "--at-most", at_most),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_environment(),
        text=True,
        errors="replace",
        start_new_session=True,
    )
    reports: list[Stage] = []
    talk: list[str] = []
    printed: list[str] = []
    assert child.stdout is not None and child.stderr is not None  # noqa: S101, PT018 - for mypy: both are pipes
    readers = [
        threading.Thread(target=_read_stages, args=(child.stderr, reports, talk, on_stage), daemon=True),
        threading.Thread(target=_read_all, args=(child.stdout, printed), daemon=True),
    ]
    for reader in readers:
        reader.start()
    timed_out = False
    try:
        child.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        timed_out = True
    finally:
        # Also on Ctrl-C, and for processes that a finished child left running.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    for reader in readers:
        reader.join(5)
    if timed_out:
        return DeviceProbe("timed_out", f"ended after {timeout_seconds:g} s", latest(reports))
    if child.returncode != 0:
        return DeviceProbe("died", f"{_how_it_ended(child.returncode)}{_last_words(talk)}", latest(reports))
    return _finished("".join(printed), reports)


def _finished(printed: str, reports: list[Stage]) -> DeviceProbe:
    try:
        stages = tuple(Stage(**stage) for stage in json.loads(printed)["stages"])
    except (ValueError, KeyError, TypeError):
        said = " ".join(printed.split())[:120]
        return DeviceProbe("garbled", f"it printed {said!r}" if said else "it printed nothing", latest(reports))
    return DeviceProbe("finished", "", stages)


def latest(reports: list[Stage]) -> tuple[Stage, ...]:
    """Keep each stage's last report."""
    return tuple({stage.name: stage for stage in reports}.values())


def _read_stages(stream: IO[str], reports: list[Stage], talk: list[str], on_stage: OnStage | None) -> None:
    for line in stream:
        if not line.startswith(STAGE_PREFIX):
            if line.strip():
                talk.append(line.strip())
            continue
        with contextlib.suppress(ValueError, TypeError):
            stage = Stage(**json.loads(line.removeprefix(STAGE_PREFIX)))
            reports.append(stage)
            if on_stage is not None:
                on_stage(stage)


def _read_all(stream: IO[str], printed: list[str]) -> None:
    printed.append(stream.read())


def _how_it_ended(returncode: int) -> str:
    if returncode > 0:
        return f"exit code {returncode}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-returncode).name}"
    return f"signal {-returncode}"


def _last_words(talk: list[str]) -> str:
    return f"; last output: {one_line(' | '.join(talk[-3:])[-400:])}" if talk else ""


def probe(
    settings: Settings | None = None,
    *,
    work: bool = True,
    on_stage: OnStage | None = None,
) -> Environment:
    """Collect the facts of this Python's environment.

    Without ``settings``, for the default model; without ``work``, without testing the device or asking the Hub.
    """
    machine = machine_probe.probe()
    installed = installed_versions()
    if settings is None:
        model = access_probe.probe_model(DEFAULT_MODEL, ask=work)
        output = PROJECT_ROOT / "outputs"
    else:
        model = access_probe.probe_model(settings.model.model_name_or_path, settings.model.revision, ask=work)
        output = settings.run_directory
    return Environment(
        machine=machine,
        installed=installed,
        probe=work_device(on_stage=on_stage) if work else DeviceProbe(),
        lock=read_lock(machine.system, stack_of(installed).name),
        model=model,
        wandb=access_probe.probe_wandb(),
        output_disk_free_bytes=machine_probe.disk_free_bytes(output),
        cache_disk_free_bytes=machine_probe.disk_free_bytes(access_probe.hub_cache()),
    )
