"""Removing and replacing folders that others may put something into: of what is there only the kit's own files go."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from kit.files.durable import fsync_folder
from kit.files.folder_lock import FolderLock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path


class FolderClaim:
    """The right to write a folder, held by one command at a time: a lock beside it, gone with its holder."""

    def __init__(self, folder: Path) -> None:
        """Claim nothing yet."""
        self._lock = FolderLock(folder.with_name(f".{folder.name}.writing"))

    def acquire(self) -> bool:
        """Take it; tell whether it was free.

        Raises:
            OSError: Nothing can be written beside the folder.
        """
        while True:
            with contextlib.suppress(FileNotFoundError):  # its holder released it, and took the lock's folder with it
                return self._lock.acquire() is None

    def release(self) -> None:
        """Release the folder."""
        self._lock.release()
        with contextlib.suppress(OSError):  # another command begins
            self._lock.path.parent.rmdir()


def is_own(entry: Path, names: Collection[str]) -> bool:
    """Tell a file that the kit writes by its name; a folder under that name is somebody's."""
    return entry.name in names and (entry.is_symlink() or not entry.is_dir())


def remove_own(folder: Path, names: Collection[str]) -> None:
    """Remove the files of these names, and the folder where nothing else is in it; a link's target stays as it is.

    Raises:
        OSError: One cannot be removed.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    for entry in folder.iterdir():
        if is_own(entry, names):
            entry.unlink()
    with contextlib.suppress(OSError):  # not empty
        folder.rmdir()


def carry_over(old: Path, new: Path, names: Collection[str]) -> None:
    """Remove a folder that another has replaced; what the kit did not write goes into the new one.

    Raises:
        OSError: It cannot be done.
    """
    remove_own(old, names)
    for entry in old.iterdir() if old.is_dir() else ():
        new.mkdir(exist_ok=True)
        if not os.path.lexists(new / entry.name):
            entry.rename(new / entry.name)
    with contextlib.suppress(OSError):  # gone, or something bears the name of a new file
        old.rmdir()


def take_place(
    aside: Path,
    folder: Path,
    names: Callable[[Path], Collection[str]],
    check: Callable[[Path], None] = lambda _old: None,
) -> None:
    """Put a folder that was written aside in another's place, whose files go only when the new ones stand.

    Args:
        aside: The new one.
        folder: What it is to be.
        names: Names the kit's own files in a folder.
        check: Raises where the old one, which nobody finds any more, is not to be replaced; it goes back then.

    Raises:
        OSError: It cannot be done; ``put_back`` repairs what a process killed here leaves.
    """
    put_back(folder, names)
    try:
        if folder.exists():
            folder.rename(_replaced(folder))
            check(_replaced(folder))
        aside.replace(folder)
        fsync_folder(folder.parent)
    finally:
        put_back(folder, names)


def put_back(folder: Path, names: Callable[[Path], Collection[str]]) -> None:
    """Bring a folder that is being replaced to one of its two states: the old one, or the new one without the old."""
    old = _replaced(folder)
    if not old.is_dir() or old.is_symlink():
        return
    if folder.exists():
        carry_over(old, folder, names(old))
    else:
        old.rename(folder)


def _replaced(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")
