"""Files that appear together or not at all: written into a folder aside, which then takes the place of the old one.

Of the old one only what the kit writes is removed. One command at a time writes a folder; what others put into it
meanwhile is carried over.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from typing import TYPE_CHECKING, Self

from kit.files.durable import fsync_file, fsync_folder
from kit.files.own_files import FolderClaim, is_own, put_back, remove_own, take_place

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

# What a folder of prepared data may hold, so that nothing else is ever removed.
OWN_FILES = frozenset({"train.jsonl", "val.jsonl", "data_card.json", "data_card.md", "rejects.jsonl"})
BOOKS = ".books"  # of a draft alone: the ledger


class OccupiedError(Exception):
    """The folder that is to be written holds something; the message is its predicate."""

    def __init__(self, message: str, fix: str) -> None:
        """Keep both parts apart, as findings show them."""
        super().__init__(message)
        self.fix = fix


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse to write where something would be lost.

    Raises:
        OccupiedError: The folder holds data already, or files that are not the kit's.
        OSError: It cannot be looked into.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise OccupiedError("is a file, and a folder is needed there", "--out another folder, or move it away")
    foreign = sorted(entry.name for entry in folder.iterdir() if not is_own(entry, OWN_FILES))
    if foreign:
        raise OccupiedError(
            f"holds something else ({', '.join(foreign[:4])}), and prepared data has a folder to itself",
            "--out a folder of its own",
        )
    _check_own(folder, overwrite=overwrite)


def check_written(folder: Path) -> None:
    """Refuse files under the kit's names that are not the kit's: rows that a person put there are nowhere else.

    Raises:
        OccupiedError: It has no card, which the kit writes beside all it writes.
    """
    own = sorted(name for name in OWN_FILES if (folder / name).is_file())
    if own and "data_card.json" not in own:
        what = f"holds {', '.join(own)} and no data_card.json, so it was not this command that wrote it"
        raise OccupiedError(what, "move it away, or --out another folder")


def _check_own(folder: Path, *, overwrite: bool) -> None:
    own = sorted(entry.name for entry in folder.iterdir() if is_own(entry, OWN_FILES))
    if own and not overwrite:
        raise OccupiedError(f"holds data already ({', '.join(own)})", "--overwrite, or --out another folder")


class StagedFolder:
    """A folder beside the one to be written, gone without a trace unless it is published."""

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        """Prepare to write ``folder``, with ``overwrite`` in place of what the kit wrote there; make nothing yet."""
        self.folder = folder.resolve() if folder.is_symlink() else folder.absolute()
        self.path = self.folder.with_name(f".{self.folder.name}.new-{os.getpid()}")
        self._overwrite = overwrite
        self._claim = FolderClaim(self.folder)
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        """Make the folder aside, and the folders above it.

        Raises:
            OccupiedError: Another command writes the folder now, or has written it since it was looked at.
            OSError: It cannot be written beside the folder.
        """
        parent = self.folder.parent
        self._made = [path for path in (parent, *parent.parents) if not path.exists()]
        parent.mkdir(parents=True, exist_ok=True)
        if not self._claim.acquire():
            raise OccupiedError("is being written by another command", "wait for it, or --out another folder")
        try:
            self._bring_back()
            check_free(self.folder, overwrite=self._overwrite)
            self.path.mkdir()
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not published."""
        self._bring_back()
        self._let_go()

    def _let_go(self) -> None:
        self._claim.release()
        with contextlib.suppress(OSError):  # not empty: something was published there
            for path in self._made:
                path.rmdir()

    def publish(self) -> None:
        """Put the written files in the place of the old ones.

        Raises:
            OccupiedError: Somebody has put data there meanwhile.
            OSError: It could not be done; what was there before is there still.
        """
        for path in self.path.iterdir():
            fsync_file(path)
        fsync_folder(self.path)
        take_place(
            self.path, self.folder, lambda _: OWN_FILES, lambda old: _check_publishable(old, overwrite=self._overwrite)
        )

    def _bring_back(self) -> None:
        """Clear what lies beside the folder, of this command or of one that was killed.

        What others put into a folder that has since been replaced goes into the new one.
        """
        with contextlib.suppress(OSError):  # what is in the way stays beside the folder
            put_back(self.folder, lambda _: OWN_FILES)
        name = re.compile(rf"\.{re.escape(self.folder.name)}\.new-\d+")
        for aside in self.folder.parent.iterdir():
            if name.fullmatch(aside.name) and aside.is_dir() and not aside.is_symlink():
                shutil.rmtree(aside / BOOKS, ignore_errors=True)
                with contextlib.suppress(OSError):
                    remove_own(aside, OWN_FILES)


def _check_publishable(folder: Path, *, overwrite: bool) -> None:
    blocked = [entry.name for entry in folder.iterdir() if entry.name in OWN_FILES and not is_own(entry, OWN_FILES)]
    if blocked:
        raise OccupiedError(f"holds a folder named {blocked[0]} now: nothing was written", "move it away")
    try:
        _check_own(folder, overwrite=overwrite)
    except OccupiedError as exc:
        raise OccupiedError(f"{exc}, which came meanwhile: nothing was written", exc.fix) from exc
