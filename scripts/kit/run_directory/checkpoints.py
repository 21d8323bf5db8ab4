"""Checkpoints on disk: a folder is a checkpoint when it is complete to the last bit, and never before.

A checkpoint is written aside, each file hashed and flushed to the disk, sealed with a manifest that names them all,
and then renamed. Whatever ends the process in between leaves either the whole folder or none. An old one is deleted
only after a newer one is safe, and leaves its name first, so that half of one is never met under a checkpoint's name.

Imports no torch: looking for the newest complete checkpoint is part of the checks before a run.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from kit.cli.console import say
from kit.cli.failures import ExplainedError
from kit.cli.findings import Finding, warning
from kit.files.digest import file_sha256
from kit.files.durable import fsync_file, fsync_folder
from kit.files.json_files import object_or_none, parse
from kit.files.own_files import is_own, remove_own
from kit.files.regular_files import read_regular
from kit.run_directory.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CHECKPOINTS, METRICS, OPTIMIZER, STATE

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_NAME = re.compile(r"checkpoint-(\d{1,12})\Z")
# Beside a checkpoint: never met under a name that counts.
_ASIDE = re.compile(r"\.checkpoint-\d{1,12}\.(partial|superseded|deleted)")
# What a checkpoint holds, where its manifest can no longer say it.
_FILES = frozenset({MANIFEST, METRICS, ADAPTER_WEIGHTS, ADAPTER_CONFIG, OPTIMIZER, STATE})


class DamagedCheckpointError(RuntimeError):
    """A folder is not what its manifest says; the message is a predicate, such as ``has no manifest.json``."""


class ResumeError(ExplainedError):
    """A complete checkpoint that does not fit this run; the message is one sentence."""

    finding_id = "run.resume"
    fix = "resume another checkpoint (--resume PATH), or start a new run (training.run_name=…)"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose every file was there and hashed to what its manifest says.

    Attributes:
        files: SHA-256 by file name.
        manifest_sha256: The manifest's own hash, which stands for all of it.
    """

    folder: Path
    step: int
    facts: dict[str, Any]
    files: dict[str, str]
    size_bytes: int
    manifest_sha256: str


def write(parent: Path, step: int, fill: Callable[[Path], None], facts: dict[str, Any]) -> Checkpoint:
    """Write ``checkpoint-STEP`` under ``parent``, complete or not at all; ``fill`` writes the files, flat.

    Raises:
        OSError: The disk did not take it; what was there before is untouched.
    """
    parent.mkdir(exist_ok=True)
    target = parent / f"checkpoint-{step}"
    aside = parent / f".{target.name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        fill(aside)
        files = {}
        for path in sorted(aside.iterdir()):
            fsync_file(path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        manifest = seal({"schema_version": SCHEMA_VERSION, "step": step, "files": files, "facts": facts})
        with (aside / MANIFEST).open("wb") as file:
            file.write(manifest)
            file.flush()
            os.fsync(file.fileno())
        fsync_folder(aside)
        if target.exists():  # damaged, or of a run that went on from an older one
            set_aside(target)
        os.rename(aside, target)  # noqa: PTH104 - never onto something that is there
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    fsync_folder(parent)
    return _checkpoint(target, manifest)


def seal(content: dict[str, Any]) -> bytes:
    """Serialise a manifest with a hash over all of it, in the one form that ``read`` accepts."""
    body = {**content, "sha256": sha256(_canonical(content)).hexdigest()}
    return json.dumps(body, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, allow_nan=False).encode()


def _checkpoint(folder: Path, manifest: bytes) -> Checkpoint:
    content = json.loads(manifest)
    files = {name: str(entry["sha256"]) for name, entry in content["files"].items()}
    size = sum(entry["bytes"] for entry in content["files"].values())
    return Checkpoint(folder, content["step"], content["facts"], files, size, sha256(manifest).hexdigest())


def read(folder: Path) -> Checkpoint:
    """Read a checkpoint and recompute every hash.

    Raises:
        DamagedCheckpointError: It is not complete; the message says what is wrong with which file.
    """
    try:
        manifest = read_regular(folder / MANIFEST)
    except OSError as exc:
        raise DamagedCheckpointError(f"has no readable {MANIFEST} ({exc.strerror})") from exc
    try:
        content = parse(manifest)
        is_sealed = seal({key: value for key, value in content.items() if key != "sha256"}) == manifest
    except (ValueError, AttributeError, TypeError):
        is_sealed = False
    if not is_sealed:
        raise DamagedCheckpointError(f"has a {MANIFEST} that changed after it was written")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise DamagedCheckpointError(f"was written by another version of the kit ({MANIFEST}: schema_version)")
    if not _has_our_form(content):
        raise DamagedCheckpointError(f"has a {MANIFEST} that the kit did not write")
    named = _NAME.match(folder.name)
    if named and int(named[1]) != content["step"]:
        raise DamagedCheckpointError(f"holds step {content['step']} but is named after another step")
    unnamed = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    unnamed = [name for name in unnamed if name != MANIFEST and name not in content["files"]]
    if unnamed:  # what is loaded must have been hashed
        raise DamagedCheckpointError(f"holds {', '.join(unnamed)}, which its {MANIFEST} does not name")
    _check_files(folder, content["files"])
    return _checkpoint(folder, manifest)


def _check_files(folder: Path, files: dict[str, Any]) -> None:
    """Hash each file of a checkpoint.

    Raises:
        DamagedCheckpointError: One is not what was saved.
    """
    for name, entry in files.items():
        path = folder / name
        try:
            is_same = path.stat().st_size == entry["bytes"] and file_sha256(path) == entry["sha256"]
        except OSError as exc:
            raise DamagedCheckpointError(f"{name} cannot be read ({exc.strerror})") from exc
        if not is_same:
            raise DamagedCheckpointError(f"{name} changed since it was saved: its checksum differs")


def _has_our_form(content: dict[str, Any]) -> bool:
    """Tell whether a manifest holds what ``write`` puts there: each file beside it, none elsewhere on the disk."""
    step, files, facts = content.get("step"), content.get("files"), content.get("facts")
    if not isinstance(files, dict) or not isinstance(facts, dict) or not _is_count(step):
        return False
    if not isinstance(facts.get("identity", {}), dict):
        return False
    are_beside = all(name and "/" not in name and "\0" not in name and name not in {".", ".."} for name in files)
    entries = [entry if isinstance(entry, dict) else {} for entry in files.values()]
    return are_beside and all(
        _is_count(entry.get("bytes")) and isinstance(entry.get("sha256"), str) for entry in entries
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def folders(parent: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of everything named like a checkpoint, newest first."""
    if not parent.is_dir():
        return []
    named = [(int(match[1]), path) for path in parent.iterdir() if (match := _NAME.match(path.name))]
    return sorted(named, reverse=True)


def newest(parent: Path) -> tuple[Checkpoint | None, list[Finding]]:
    """Return the newest complete checkpoint, None where there is none, and a warning for each damaged one before it."""
    damaged: list[Finding] = []
    for _, folder in folders(parent):
        try:
            return read(folder), damaged
        except DamagedCheckpointError as exc:
            damaged.append(warning("resume.damaged", f"{exc}; skipped", where=str(folder)))
    return None, damaged


def set_aside(folder: Path) -> None:
    """Take a checkpoint's name from a folder, keeping what is in it until the next checkpoint is safe.

    A folder that holds something else besides is kept for good, under a name that is no checkpoint's.
    """
    place = folder.with_name(f".{folder.name}.superseded")
    if _is_own(folder):
        shutil.rmtree(place, ignore_errors=True)
    else:
        names = (folder.with_name(f"{folder.name}.kept-{number}") for number in itertools.count(1))
        place = next(name for name in names if not os.path.lexists(name))
        say(f"{folder} holds files the kit did not write; kept as {place.name}", "yellow")
    folder.rename(place)


def prune(parent: Path, keep: int, *, newest: int | None = None) -> None:
    """Delete all but the newest ``keep`` checkpoints up to step ``newest``, and what was set aside."""
    kept = 0
    for step, folder in folders(parent):
        if newest is not None and step > newest:
            continue
        if kept < keep:
            kept += (folder / MANIFEST).is_file()
        elif _is_own(folder):
            gone = folder.with_name(f".{folder.name}.deleted")
            shutil.rmtree(gone, ignore_errors=True)
            with contextlib.suppress(OSError):  # an old one that stays costs space and nothing else
                folder.rename(gone)
    sweep(parent)


def sweep(parent: Path) -> None:
    """Remove what a process that died left half written or half deleted."""
    for path in parent.iterdir() if parent.is_dir() else ():
        if _ASIDE.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def clear(parent: Path) -> None:
    """Delete every checkpoint; what else is there stays.

    Raises:
        OSError: One cannot be deleted.
    """
    sweep(parent)
    for _, folder in folders(parent):
        remove_own(folder, _names(folder))
    remove_own(parent, ())


def _is_own(folder: Path) -> bool:
    """Tell a checkpoint with nothing else in it."""
    names = _names(folder)
    return not folder.is_symlink() and folder.is_dir() and all(is_own(entry, names) for entry in folder.iterdir())


def _names(folder: Path) -> Collection[str]:
    """Name a checkpoint's own files, by its manifest where that can be read."""
    files = (object_or_none(folder / MANIFEST) or {}).get("files")
    return _FILES.union(files) if isinstance(files, dict) else _FILES


def resume_hint(folder: Path) -> list[Finding]:
    """Return the checkpoint that a failed run can resume from, as a finding."""
    found, _ = newest(folder / CHECKPOINTS)
    if found is None:
        return []
    fix = "fix the cause, then repeat the command with --resume auto (make: RESUME=auto)"
    return [warning("run.resumable", f"step {found.step:,} is saved", fix, str(found.folder))]
