"""What a new run removes from an earlier one's folder: all that the kit wrote, and nothing else."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from kit.cli.traceback_file import NAME as ERROR_FILE
from kit.files.folder_lock import NAME as LOCK
from kit.files.json_files import object_or_none
from kit.files.own_files import put_back, remove_own
from kit.run_directory import checkpoints
from kit.run_directory.names import (
    ADAPTER,
    ADAPTER_FILES,
    CHECKPOINTS,
    CURVES,
    DEMO,
    HANDED_ON,
    LOG,
    MERGE_STAMP,
    MERGED,
    METRICS,
    RECEIPT,
    REPORT_PAGE,
    REPORT_PICTURE,
    RERUN,
    RERUN_CONFIG,
    STALLED,
    evaluation_name,
    merged_files,
)

_RERUN_FILES = (RERUN, RERUN_CONFIG)
_FILES = (RECEIPT, METRICS, STALLED, LOG, REPORT_PAGE, REPORT_PICTURE, DEMO, ERROR_FILE, *_RERUN_FILES)
_EVALUATION = re.compile(r"evaluation(-.+)?\.json")
_CURVES = re.compile(rf"((offline-)?run-\d{{8}}_\d{{6}}-\w+|latest-run|debug(-\w+)*\.log|sender\.log|{HANDED_ON})")
_LEFTOVER = re.compile(r"\.(.+)\.(\d+|partial)")


def clear(folder: Path, *, is_rerun: bool = False) -> list[Path]:
    """Remove all that the kit wrote about an earlier run; ``is_rerun`` keeps the file that names the original.

    Returns:
        What stays: files the kit did not write.

    Raises:
        OSError: Something cannot be removed.
    """
    if not folder.is_dir():
        return []
    checkpoints.clear(folder / CHECKPOINTS)
    put_back(folder / ADAPTER, lambda _: ADAPTER_FILES)
    put_back(folder / MERGED, merged_files)
    remove_own(folder / ADAPTER, ADAPTER_FILES)
    if (folder / MERGED / MERGE_STAMP).is_file():
        remove_own(folder / MERGED, merged_files(folder / MERGED))
    _remove_curves(folder / CURVES)
    kept = _RERUN_FILES if is_rerun or not (folder / RERUN).is_file() else ()
    for entry in folder.iterdir():
        if entry.name not in kept and _is_own(entry):
            entry.unlink()
        elif entry.name in {f".{ADAPTER}.partial", f".{MERGED}.partial"} and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
    return [path for path in _kept_files(folder) if not (is_rerun and path.name in _RERUN_FILES)]


def _is_own(entry: Path) -> bool:
    if entry.is_dir() and not entry.is_symlink():
        return False
    name = entry.name
    if leftover := _LEFTOVER.fullmatch(name):  # of a process that was killed while it wrote
        name = leftover[1]
    if _EVALUATION.fullmatch(name) and not leftover and name != evaluation_name():
        return "evaluated_at" in (object_or_none(entry) or {})  # people name files like this too
    return name in _FILES or bool(_EVALUATION.fullmatch(name))


def _remove_curves(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        return
    for entry in folder.iterdir():
        if not _CURVES.fullmatch(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()
    remove_own(folder, ())


def _kept_files(folder: Path) -> list[Path]:
    stays = []
    for entry in sorted(folder.iterdir()):
        if entry.name in {LOCK, f".{MERGED}.writing"}:
            continue
        is_ours = entry.name in {ADAPTER, CHECKPOINTS, MERGED, CURVES} and entry.is_dir() and not entry.is_symlink()
        stays += sorted(entry.iterdir()) if is_ours else [entry]
    return stays
