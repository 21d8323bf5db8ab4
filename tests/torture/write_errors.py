"""Make writes of a real run fail, and look at how it ends and at what it leaves.

A small library (``failing_writes.c``) is compiled and preloaded; a forked child turns it on by its own environment.
Each attempt meets a random error at a random call on one of its files, once or from then on, as disks do. Then the run
is gone on with, and must end as one nobody touched.
"""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.command import A_BUG
from kit.cli.traceback_file import NAME as ERROR_FILE
from kit.run_directory import checkpoints
from kit.run_directory.receipt import read_receipt
from torture.judging import Saved

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torture.kills import Torture

SOURCE = Path(__file__).with_name("failing_writes.c")
_LIBRARY = "failing_writes.so"
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_PER_RUN = 4  # failures, before a run is let go to its end
_FOR_EVER = 10**9
# Python's own, and those of C++ and Rust.
_TRACEBACK = re.compile(r"Traceback \(most recent|Exception ignored|terminate called|panicked at")


def why_not() -> str:
    """Say why no write can be made to fail here; empty where it can."""
    if sys.platform != "linux":
        return "libraries are preloaded on Linux only"
    return "" if shutil.which("cc") else "there is no C compiler (cc)"


def compile_library(folder: Path) -> Path:
    """Compile the library into a folder."""
    library = folder / _LIBRARY
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


def run_preloaded(folder: Path, command: Sequence[str]) -> dict[str, Any]:
    """Run a command with the library, compiled into a folder, and return the JSON object that it prints.

    Raises:
        RuntimeError: It prints none.
    """
    environment = {**os.environ, "LD_PRELOAD": str(compile_library(folder))}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=False)
    try:
        return dict(json.loads(done.stdout))
    except ValueError as exc:
        raise RuntimeError(f"the preloaded process ended with exit code {done.returncode}") from exc


def is_preloaded() -> bool:
    """Tell whether this process runs with the library."""
    return _LIBRARY in os.environ.get("LD_PRELOAD", "")


@dataclass(frozen=True)
class Failure:
    """What fails: calls on files under a folder, from the one of this number on."""

    folder: Path
    number: int
    after: int
    times: int

    def arm(self) -> None:
        """Turn it on in this process."""
        os.environ.update(
            FAILING_WRITES_PATH=str(self.folder),
            FAILING_WRITES_ERRNO=str(self.number),
            FAILING_WRITES_AFTER=str(self.after),
            FAILING_WRITES_TIMES=str(self.times),
            FAILING_WRITES_LOG=str(_log_of(self.folder)),
        )
        tempfile.tempdir = str(self.folder.parent)


@dataclass
class WriteReport:
    """What failing writes came to.

    Attributes:
        failures: Attempts in which a write failed, by error.
        calls: The same, by the first call that failed and the kind of file.
        survived: How many of them came to the run's end all the same.
        finished: Runs that ended as the one nobody touched.
        faults: What must not happen, one sentence each.
    """

    failures: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    survived: int = 0
    finished: int = 0
    faults: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {**vars(self), "failures": dict(self.failures), "calls": dict(self.calls)}


class WriteErrors:
    """Failing writes in the runs of one small job.

    Args:
        torture: The job; this process must be preloaded.
        seed: Of what fails.
    """

    def __init__(self, torture: Torture, seed: int) -> None:
        """List the calls of a run in peace."""
        self.torture, self.report = torture, WriteReport()
        self.random = random.Random(seed)  # noqa: S311 - which write, no secret
        folder = torture.folder / "listed-"
        torture.attempt(folder.name, in_child=Failure(folder, 0, 0, 0).arm)
        self.calls = [_kind(line) for line in _lines(folder)]
        self._trained = next(at for at, call in enumerate(self.calls) if ".adapter" in call)

    def storm(self, failures: int) -> Iterator[str]:
        """Fail runs, a few times each, until there were so many failures.

        Yields:
            Each run's name, once it has come to its end.
        """
        number = 0
        while sum(self.report.failures.values()) < failures:
            name = f"write-{number}-"
            self.strike(name, min(_PER_RUN, failures - sum(self.report.failures.values())))
            number += 1
            yield name

    def strike(self, name: str, failures: int) -> None:
        """Fail one run a few times, let it finish, and compare."""
        torture, output = self.torture, self.torture.folder / name
        code = -1
        for _ in range(failures):
            code = self._fail_once(output)
            if code == 0:
                break
        if code != 0:
            code = torture.attempt(name)
        if code != 0:
            self.report.faults.append(f"{name}: could not be brought to its end (exit code {code})")
        elif not torture.is_as_expected(name):
            self.report.faults.append(f"{name}: ended otherwise than the run nobody touched")
        else:
            self.report.finished += 1

    def _fail_once(self, output: Path) -> int:
        before, said_before = Saved.of(output), self._said()
        at = self._call_after(before.newest)
        failure = Failure(
            output, self.random.choice(ERRORS), at, times=self.random.choice((1, self.random.randint(2, 20), _FOR_EVER))
        )
        log = _log_of(output)
        log.unlink(missing_ok=True)
        code = self.torture.attempt(output.name, in_child=failure.arm)
        calls = _lines(output)
        if len(calls) > at:
            self.report.failures[errno.errorcode[failure.number]] += 1
            self.report.calls[_kind(calls[at])] += 1
            self.report.survived += code == 0
            said = self._said()[len(said_before) :]
            faults = self._faults(output, failure, code, said, before)
            where = f"{errno.errorcode[failure.number]} at {calls[at]}, {failure.times} times"
            self.report.faults += [f"{output.name}: {where}: {fault}; it said:\n{said[-2000:]}" for fault in faults]
        return code

    def _call_after(self, step: int) -> int:
        """Choose a call of what is left after a step; each kind as often, whether a run makes it once or always."""
        first = round(self._trained * step / self.torture.steps)
        kind = self.random.choice(sorted(set(self.calls[first:])))
        return self.random.choice([at for at, call in enumerate(self.calls[first:]) if call == kind])

    def _faults(self, output: Path, failure: Failure, code: int, said: str, before: Saved) -> Iterator[str]:
        newest, damaged = checkpoints.newest(output / "checkpoints")
        yield from (f"{finding.where} {finding.message}" for finding in damaged)
        if (newest.step if newest else 0) < before.newest:
            yield f"step {before.newest} was saved and is gone"
        if found := _TRACEBACK.search(said):
            yield f"{found[0]!r} on the terminal"
        if code not in {0, 1}:
            yield f"exit code {code}"
        if code == 1 and (A_BUG in said or "error  " not in said or "fix:" not in said):
            yield "no sentence of its own"
        receipt = read_receipt(output)
        if (output / "run.json").exists() and receipt is None:
            yield "run.json cannot be read"
        if code == 1 and failure.times == 1:  # all that comes after it can be written
            begun = len((receipt or {}).get("sessions", ())) > before.sessions
            if begun and receipt and receipt["state"] != "failed":
                yield f"the receipt says {receipt['state']}"
            if output.is_dir() and not (output / ERROR_FILE).exists():
                yield f"no {ERROR_FILE}"

    def _said(self) -> str:
        log = self.torture.folder / "log.txt"
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def _log_of(folder: Path) -> Path:
    return folder.with_name(f"calls-of-{folder.name}.txt")


def _lines(folder: Path) -> list[str]:
    log = _log_of(folder)
    return log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []


def _kind(line: str) -> str:
    """Name a call and what kind of file it is on: ``fsync .checkpoint/optimizer.safetensors``."""
    call, _, path = line.partition(" ")
    name, folder = Path(path).name, Path(path).parent.name
    inside = f"{folder}/{name}" if "checkpoint-" in folder or "adapter" in folder else name
    return f"{call} {re.sub(r'[0-9]+|[.]tmp[A-Za-z0-9]+', '', inside)}"
