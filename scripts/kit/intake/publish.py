"""Files that appear together or not at all: written into a folder aside, which then takes the place of the old one."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
from typing import TYPE_CHECKING, Self

from kit.durable import fsync_file, fsync_folder

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

# What a folder of prepared data may hold, so that nothing else is ever replaced.
OWN_FILES = frozenset({"train.jsonl", "val.jsonl", "data_card.json", "data_card.md", "rejects.jsonl"})
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class OccupiedError(Exception):
    """The folder that is to be written holds something; the message is its predicate."""

    def __init__(self, message: str, fix: str) -> None:
        """Keep both parts apart, as findings show them."""
        super().__init__(message)
        self.fix = fix


def check_free(folder: Path, *, overwrite: bool) -> None:
    """See to it that nothing of anybody's is lost.

    Raises:
        OccupiedError: The folder holds data already, or files that are not the kit's.
        OSError: It cannot be looked into.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise OccupiedError("is a file, and a folder is needed there", "--out another folder, or move it away")
    there = sorted(entry.name for entry in folder.iterdir())
    foreign = [name for name in there if name not in OWN_FILES]
    if foreign:
        raise OccupiedError(
            f"holds something else ({', '.join(foreign[:4])}), and the whole folder is replaced",
            "--out a folder of its own",
        )
    if there and not overwrite:
        raise OccupiedError(f"holds data already ({', '.join(there)})", "--overwrite, or --out another folder")


class Draft:
    """A folder beside the one to be written, gone without a trace unless it is published."""

    def __init__(self, folder: Path) -> None:
        """Prepare to write ``folder``; nothing is made yet."""
        self.folder = folder.resolve() if folder.is_symlink() else folder.absolute()
        self.path = self.folder.with_name(f".{self.folder.name}.new-{os.getpid()}")
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        """Make the folder aside, and the folders above it."""
        parent = self.folder.parent
        self._made = [path for path in (parent, *parent.parents) if not path.exists()]
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(self.folder)
        self.path.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not published."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: something was published there
            for path in self._made:
                path.rmdir()

    def publish(self) -> None:
        """Put the written files in the place of the old ones, in one step where the system has one.

        Raises:
            OSError: It could not be done; what was there before is there still.
        """
        for path in self.path.iterdir():
            fsync_file(path)
        fsync_folder(self.path)
        if not self.folder.exists() or not any(self.folder.iterdir()):
            self.path.replace(self.folder)  # over an empty folder too
        elif not _exchanged(self.path, self.folder):
            old = self.folder.with_name(f".{self.folder.name}.old-{os.getpid()}")
            self.folder.replace(old)
            try:
                self.path.replace(self.folder)
            except BaseException:
                old.replace(self.folder)
                raise
            shutil.rmtree(old, ignore_errors=True)
        fsync_folder(self.folder.parent)


def _exchanged(one: Path, other: Path) -> bool:
    """Swap two folders in one step (Linux); tell whether that was done."""
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # an older libc
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _remove_abandoned(folder: Path) -> None:
    """Remove what a run left that was killed."""
    for kind in ("new", "old"):
        for path in folder.parent.glob(f".{folder.name}.{kind}-*"):
            number = path.name.rpartition("-")[2]
            if number.isdigit() and not _is_running(int(number)):
                if kind == "old" and not folder.exists():
                    path.replace(folder)  # killed between two renames: what was there goes back
                else:
                    shutil.rmtree(path, ignore_errors=True)


def _is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
