"""The ledger: every measurement the project took, one JSON object a line, appended and never rewritten.

A line names what was measured, on which device, with which driver and versions, from which code, by which command and
when; ``result`` holds the figures and the raw times. A line that was cut short by a power failure is no measurement,
and the next append begins on a line of its own. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kit.cli.interpreter import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "measurements"
SCHEMA_VERSION = 1
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Place:
    """Where and with what a measurement was taken; it holds there alone.

    Attributes:
        scale: ``7b`` or ``small``.
        device: The GPU's name, or the processor's.
        driver: The NVIDIA driver's version; empty on a CPU.
        code: The hash of the code that is measured (``code_hash``).
    """

    scale: str
    device: str
    driver: str
    memory_bytes: int
    versions: dict[str, str]
    python: str
    code: str

    @property
    def file_name(self) -> str:
        """The name of this device's ledger."""
        words = "".join(letter if letter.isalnum() else " " for letter in self.device.lower()).split()
        return f"{'-'.join(words)[:_LONGEST_NAME] or 'unknown'}.jsonl"


@dataclass(frozen=True)
class Record:
    """One measurement.

    Attributes:
        measurement: Its name, as ``bench.measurements`` has it.
        result: The figures; ``failed`` in place of them says why there are none, with ``final`` where there will be
            none on this device.
        date: When it ended, ISO 8601, UTC.
        commit: ``git_revision`` and ``git_dirty``, as a run's receipt has them.
    """

    measurement: str
    place: Place
    result: dict[str, Any]
    seconds: float
    date: str
    command: list[str]
    commit: dict[str, Any] = field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """It is not repeated: it has figures, or the device lacks the memory for them."""
        return "failed" not in self.result or bool(self.result.get("final"))


def append(path: Path, record: Record) -> None:
    """Add a line, whole and on the disk, or nothing.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"schema_version": SCHEMA_VERSION, **asdict(record)}, ensure_ascii=False, sort_keys=True) + "\n"
    with path.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                line = "\n" + line
        stream.write(line.encode())
        stream.flush()
        os.fsync(stream.fileno())


def read(path: Path) -> list[Record]:
    """Return a ledger's measurements, oldest first; lines that were cut short are left out.

    Raises:
        OSError: It is there and cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return list(_records(lines))


def read_all(folder: Path = FOLDER) -> list[Record]:
    """Return the measurements of every ledger in a folder, oldest first."""
    found = [record for path in sorted(folder.glob("*.jsonl")) for record in read(path)]
    return sorted(found, key=lambda record: record.date)


def _records(lines: Sequence[bytes]) -> Iterator[Record]:
    for line in lines:
        try:
            body = json.loads(line)
            del body["schema_version"]
            yield Record(**{**body, "place": Place(**body["place"])})
        except (ValueError, TypeError, KeyError):
            continue


def measured_here(records: Sequence[Record], place: Place) -> dict[str, Record]:
    """Return what need not be measured again at a place, by name: the newest of each."""
    return {record.measurement: record for record in records if record.place == place and record.is_final}


def newest(records: Sequence[Record]) -> dict[str, Record]:
    """Return the newest of each measurement by name; figures before a later failure."""
    found: dict[str, Record] = {}
    for record in records:
        before = found.get(record.measurement)
        if before is None or record.is_final or not before.is_final:
            found[record.measurement] = record
    return found


def code_hash(paths: Sequence[Path]) -> str:
    """Return one hash over the contents of files, and of all Python files in folders, with their names."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(PROJECT_ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
