"""Takes the measurements within a time limit, each into the ledger as soon as it is there. Imports no torch.

What measures is a process of its own (``bench.worker``): one holds the base and takes most of them; what patches
libraries gets another, beside it. A measurement that hangs or kills its process costs itself alone.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from kit.cli.interpreter import PROJECT_ROOT, python_path
from kit.plan.ledger import Place, Record, append, measured_here, read
from kit.run_directory.provenance import describe_code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.measurements import Measurement

LEFT_OUT = "no time left"
_START_S = {"7b": 45.0, "small": 12.0}  # imports, and the base
_SMALL_SHARE = 0.15  # of the seconds at the 7b scale
_PATIENCE = 4.0  # times what a measurement is expected to take until it is given up, at least these seconds
_LEAST_S = {"7b": 60.0, "small": 300.0}  # a CPU may be anybody's, and busy


@dataclass(frozen=True)
class Outcome:
    """What became of one measurement: measured now, known from before, or why neither.

    Attributes:
        measurement: Which.
        record: The ledger's line; None where there is none.
        why_not: Why it was not measured now.
    """

    measurement: Measurement
    record: Record | None
    why_not: str = ""


@dataclass(frozen=True)
class Orders:
    """The options of ``make prove``.

    Attributes:
        limit: Seconds in all.
        again: Measure also what is measured already.
        command: How it was called, for the ledger.
        device: ``cuda`` or ``cpu``.
        folder: Where the random base lies.
        ledger: The file to append to.
        log: Where what libraries print goes.
        worker: What measures, without its arguments.
    """

    limit: float
    again: bool
    command: list[str]
    device: str
    folder: Path
    ledger: Path
    log: Path
    worker: tuple[str, ...] = (sys.executable, "-m", "bench.worker")


class _Process:
    """A worker that is started when it is first asked."""

    def __init__(self, place: Place, orders: Orders) -> None:
        self._command = [*orders.worker, place.scale, orders.device, str(orders.folder)]
        self._log = orders.log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def ask(self, name: str, seconds: float) -> dict[str, Any] | None:
        """Return the answer, or None where none came in time; then the process is gone."""
        if self._process is None:
            self._process = self._start()
        process = self._process
        try:
            _pipe(process.stdin).write(json.dumps({"measurement": name}).encode() + b"\n")
            _pipe(process.stdin).flush()
            answer = _line(_pipe(process.stdout), time.monotonic() + seconds)
        except BrokenPipeError:
            answer = b""
        if answer:
            return dict(json.loads(answer))
        self.close()
        if answer is None:
            return None
        return {"failed": f"its process ended with exit code {process.returncode}: {self._last_line()}"}

    def close(self) -> None:
        """End the process and all it started."""
        process, self._process = self._process, None
        if process is None:
            return
        _pipe(process.stdin).close()
        try:
            process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": os.pathsep.join([str(PROJECT_ROOT), python_path()]),
        }
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def _last_line(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "no message"


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # noqa: S101 - both are pipes
    return stream


def _line(stream: IO[bytes], until: float) -> bytes | None:
    """Return a line as it comes, empty at the stream's end, None where none came in time."""
    found = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not found.endswith(b"\n"):
            if not selector.select(max(0.0, until - time.monotonic())):
                return None
            piece = os.read(stream.fileno(), 1 << 16)
            if not piece:
                return b""
            found += piece
    return found


def conduct(
    chosen: Sequence[Measurement],
    impossible: dict[str, str],
    place: Place,
    orders: Orders,
    tell: Callable[[Outcome], None],
) -> list[Outcome]:
    """Take the measurements in their order, as far as the time goes: first those that no code was measured with here.

    Args:
        chosen: What to measure.
        impossible: Why some of it cannot be measured here, by name.
        place: Where and with what.
        orders: The call.
        tell: Told of each as soon as it is known.

    Raises:
        OSError: The ledger cannot be read or written.
    """
    began = time.monotonic()
    before = read(orders.ledger)
    known = {} if orders.again else measured_here(before, place)
    same = [record for record in before if (record.place.scale, record.is_final) == (place.scale, True)]
    lasted = {record.measurement: record.seconds for record in same}
    commit = describe_code()
    main, apart = (_Process(place, orders) for _ in range(2))
    outcomes: list[Outcome] = []

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        tell(outcome)

    try:
        for item in sorted(chosen, key=lambda item: item.name in lasted):
            if item.name in known:
                note(Outcome(item, known[item.name], "measured before"))
                continue
            if item.name in impossible:
                note(Outcome(item, None, impossible[item.name]))
                continue
            process = apart if item.apart else main
            start = 0.0 if process.is_running else _START_S[place.scale]
            share = 1.0 if place.scale == "7b" else _SMALL_SHARE
            expected = lasted.get(item.name, item.seconds * share)
            left = orders.limit - (time.monotonic() - began)
            if left < expected + (start if item.name not in lasted else 0):
                note(Outcome(item, None, LEFT_OUT))
                continue
            at = time.monotonic()
            result = process.ask(item.name, min(left, max(_LEAST_S[place.scale], _PATIENCE * expected) + start))
            if item.apart:
                process.close()
            if result is None:
                note(Outcome(item, None, f"stopped after {time.monotonic() - at:.0f} s"))
                continue
            now = datetime.now(UTC).isoformat(timespec="seconds")
            seconds = round(time.monotonic() - at, 2)
            record = Record(item.name, place, result, seconds, now, orders.command, commit)
            append(orders.ledger, record)
            note(Outcome(item, record))
    finally:
        main.close()
        apart.close()
    return outcomes
