"""A saved advisory database in the Open Source Vulnerability format (OSV 1.x), looked up without a network.

Read are a folder of its JSON or YAML files (a checkout of the Python Packaging Advisory Database), the zip archive that
osv.dev exports for an ecosystem, or one JSON file with a record or a list of them.
"""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped,unused-ignore] # the stubs are not part of the locks
from packaging.version import InvalidVersion, Version

from kit.files.regular_files import read_regular
from tools.advisories.answer import Answer, Vulnerability, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from kit.stacks.locks import Lock

_SUFFIXES = (".json", ".yaml", ".yml")
_LARGEST_RECORD_BYTES = 4_000_000
_MOST_RECORDS = 1_000_000
_NAME = re.compile(r"(?m)^\s*(?:-\s+)?name:\s*['\"]?([A-Za-z0-9._-]+)")
_MODIFIED = re.compile(r"(?m)^modified:\s*['\"]?(\d{4}-\d\d-\d\d)")
_EVERYTHING_BEFORE = "0"  # how the format writes "from the first version on"


class DatabaseError(ValueError):
    """A saved database that cannot be used; the message is its predicate."""


@dataclass
class Database:
    """The records about some packages.

    Attributes:
        records: By canonical package name, the records that name it.
        newest: The day of the newest change among all records, which is as far as the database knows.
        count: All records, about whatever package.
    """

    records: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    newest: date | None = None
    count: int = 0


def read_database(path: Path, packages: Iterable[str]) -> Database:
    """Read the records that concern these packages.

    Raises:
        DatabaseError: There is nothing there that is a database.
        OSError: It cannot be read.
    """
    wanted = {canonical(name) for name in packages}
    database = Database()
    for name, raw in _files(path):
        text = raw.decode("utf-8", "replace")
        for record in _records(name, text, wanted, database):
            for affected in record.get("affected") or []:
                package = _package(affected)
                if package in wanted:
                    database.records.setdefault(package, []).append(record)
    if not database.count:
        raise DatabaseError("holds no advisory in the OSV format (.json or .yaml)")
    return database


def look_up(database: Database, lock: Lock, pins: Mapping[str, str], source: str) -> Answer:
    """Say what the database knows about a lock's packages."""
    found: dict[tuple[str, str], Vulnerability] = {}
    unchecked: dict[str, str] = {}
    for name, version in pins.items():
        package = canonical(name)
        try:
            pinned = Version(version)
        except InvalidVersion:
            unchecked[package] = f"{version} is no version the format can compare"
            continue
        for record in database.records.get(package, []):
            hits = [entry for entry in record.get("affected") or [] if _package(entry) == package]
            hits = [entry for entry in hits if _is_affected(entry, pinned)]
            if hits and not record.get("withdrawn"):
                known = str(record.get("id", "?"))
                names = frozenset(str(alias) for alias in record.get("aliases") or [])
                found[package, known] = Vulnerability(package, version, known, names, _fixes(hits, pinned))
    distinct = _without_doubles(list(found.values()))
    return Answer(source, lock.name, lock.target, pins, tuple(distinct), unchecked, is_complete=False)


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for number, file in enumerate(sorted(path.rglob("*"))):
            if number > _MOST_RECORDS:
                raise DatabaseError(f"holds more than {_MOST_RECORDS:,} files")
            if file.suffix in _SUFFIXES and file.is_file():
                _check_size(file.name, file.stat().st_size)
                yield file.name, file.read_bytes()
        return
    if zipfile.is_zipfile(path):
        # Read in memory, entry by entry, never unpacked to disk: an entry's name leads nowhere.
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_RECORDS:
                raise DatabaseError(f"holds more than {_MOST_RECORDS:,} files")
            for entry in entries:
                if entry.filename.endswith(_SUFFIXES):
                    with archive.open(entry) as packed:
                        # What an entry says of its size need not be true.
                        raw = packed.read(_LARGEST_RECORD_BYTES + 1)
                    _check_size(entry.filename, len(raw))
                    yield entry.filename, raw
        return
    yield path.name, read_regular(path)


def _check_size(name: str, size: int) -> None:
    """Refuse what is larger than any advisory, rather than leave out what it may say."""
    if size > _LARGEST_RECORD_BYTES:
        raise DatabaseError(f"holds {name}, which is over {_LARGEST_RECORD_BYTES // 10**6} MB: no advisory is")


def _records(name: str, text: str, wanted: set[str], database: Database) -> Iterator[dict[str, Any]]:
    """Parse a file's records; one about another package is only counted, since YAML takes its time."""
    if name.endswith((".yaml", ".yml")):
        if (modified := _MODIFIED.search(text)) is None:
            return
        _count(database, modified.group(1))
        if not any(canonical(match) in wanted for match in _NAME.findall(text)):
            return
        content = _yaml(name, text)
        items = [content]
    else:
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise DatabaseError(f"holds {name}, which is no JSON: {exc}") from exc
        items = content if isinstance(content, list) else [content]
        for item in items:
            if isinstance(item, dict) and item.get("modified"):
                _count(database, str(item["modified"]))
    yield from (item for item in items if isinstance(item, dict) and item.get("modified"))


def _yaml(name: str, text: str) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # Aliases make a few bytes grow without end, and no advisory has one.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=loader)):
            raise DatabaseError(f"holds {name}, which uses YAML aliases")
        return yaml.load(text, Loader=loader)  # noqa: S506 - the safe loader, in C where there is one
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise DatabaseError(f"holds {name}, which is no YAML: {' '.join(str(exc).split())[:120]}") from exc


def _count(database: Database, modified: str) -> None:
    database.count += 1
    try:
        day = datetime.fromisoformat(modified[:10]).replace(tzinfo=UTC).date()
    except ValueError:
        return
    database.newest = max(database.newest or day, day)


def _package(affected: Any) -> str:
    package = affected.get("package") if isinstance(affected, dict) else None
    if not isinstance(package, dict) or package.get("ecosystem") != "PyPI":
        return ""
    return canonical(str(package.get("name", "")))


def _is_affected(affected: Mapping[str, Any], pinned: Version) -> bool:
    """Apply the format's own rule: a listed version, or one inside a range."""
    if any(_version(text) == pinned for text in affected.get("versions") or []):
        return True
    return any(
        _in_range(scope.get("events") or [], pinned)
        for scope in affected.get("ranges") or []
        if scope.get("type") == "ECOSYSTEM"
    )


def _in_range(events: Iterable[Mapping[str, Any]], pinned: Version) -> bool:
    marks: list[tuple[Version, int, str]] = []
    for event in events:
        for rank, kind in enumerate(("introduced", "last_affected", "fixed")):
            if kind in event:
                version = Version("0.dev0") if str(event[kind]) == _EVERYTHING_BEFORE else _version(event[kind])
                if version is not None:
                    marks.append((version, rank, kind))
    inside = False
    for version, _, kind in sorted(marks):
        if kind == "introduced" and pinned >= version:
            inside = True
        elif (kind == "fixed" and pinned >= version) or (kind == "last_affected" and pinned > version):
            inside = False
    return inside


def _fixes(hits: Iterable[Mapping[str, Any]], pinned: Version) -> tuple[str, ...]:
    fixed = {
        str(event["fixed"])
        for entry in hits
        for scope in entry.get("ranges") or []
        if scope.get("type") == "ECOSYSTEM"
        for event in scope.get("events") or []
        if "fixed" in event
    }
    later = [(version, text) for text in fixed if (version := _version(text)) is not None and version > pinned]
    return tuple(text for _, text in sorted(later))


def _version(text: Any) -> Version | None:
    try:
        return Version(str(text))
    except InvalidVersion:
        return None


def _without_doubles(found: list[Vulnerability]) -> list[Vulnerability]:
    """Keep one of each: databases hold the same vulnerability under several numbers, each the others' alias."""
    kept: list[Vulnerability] = []
    for one in sorted(found, key=lambda item: (item.package, item.best_name, item.id)):
        if not any(one.package == other.package and one.names & other.names for other in kept):
            kept.append(one)
    return kept
