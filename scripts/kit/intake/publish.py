"""Files that appear together or not at all: written into a temporary folder, which then replaces the old one.

Only the kit's own files are removed from the old one; what others put there meanwhile is carried over. One command at a
time writes a folder.
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

# All that a folder of prepared data may contain; nothing else is ever removed.
OWN_FILES = frozenset({"train.jsonl", "val.jsonl", "data_card.json", "data_card.md", "rejects.jsonl"})
LEDGER = ".ledger"  # the ledger, only until the folder is published


class OccupiedError(Exception):
    """The output folder contains something; the message is its predicate."""

    def __init__(self, message: str, fix: str) -> None:
        """Keep message and fix apart, as findings show them."""
        super().__init__(message)
        self.fix = fix


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Check that writing a folder loses nothing.

    Raises:
        OccupiedError: The folder already contains data, or files that are not the kit's.
        OSError: It cannot be listed.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise OccupiedError("is a file, not a folder", "--out another folder, or move it away")
    foreign = sorted(entry.name for entry in folder.iterdir() if not is_own(entry, OWN_FILES))
    if foreign:
        raise OccupiedError(
            f"contains other files ({', '.join(foreign[:4])}); prepared data needs its own folder",
            "--out another folder",
        )
    _check_own(folder, overwrite=overwrite)


def check_written(folder: Path) -> None:
    """Check that files under the kit's names are the kit's: a user's own rows may exist nowhere else.

    Raises:
        OccupiedError: There is no data card, which the kit writes beside all other files.
    """
    own = sorted(name for name in OWN_FILES if (folder / name).is_file())
    if own and "data_card.json" not in own:
        what = f"contains {', '.join(own)} but no data_card.json, so this command did not write it"
        raise OccupiedError(what, "move it away, or --out another folder")


def _check_own(folder: Path, *, overwrite: bool) -> None:
    own = sorted(entry.name for entry in folder.iterdir() if is_own(entry, OWN_FILES))
    if own and not overwrite:
        raise OccupiedError(f"already contains data ({', '.join(own)})", "--overwrite, or --out another folder")


class StagedFolder:
    """A temporary folder beside the output folder, removed unless it is published."""

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        """Prepare to write ``folder``, with ``overwrite`` replacing what the kit wrote there; make nothing yet."""
        self.folder = folder.resolve() if folder.is_symlink() else folder.absolute()
        self.path = self.folder.with_name(f".{self.folder.name}.new-{os.getpid()}")
        self._overwrite = overwrite
        self._claim = FolderClaim(self.folder)
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        """Make the temporary folder and its parents.

        Raises:
            OccupiedError: Another command is writing the output folder, or has written it since the check.
            OSError: The temporary folder cannot be made.
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
        """Replace the old files by the written ones.

        Raises:
            OccupiedError: The folder has received data meanwhile.
            OSError: It failed; the old files are still there.
        """
        for path in self.path.iterdir():
            fsync_file(path)
        fsync_folder(self.path)
        take_place(
            self.path, self.folder, lambda _: OWN_FILES, lambda old: _check_publishable(old, overwrite=self._overwrite)
        )

    def _bring_back(self) -> None:
        """Remove temporary folders, of this command or of a killed one.

        What others put into a folder that was replaced is carried over into the new one.
        """
        with contextlib.suppress(OSError):  # what cannot be put back stays beside the folder
            put_back(self.folder, lambda _: OWN_FILES)
        name = re.compile(rf"\.{re.escape(self.folder.name)}\.new-\d+")
        for aside in self.folder.parent.iterdir():
            if name.fullmatch(aside.name) and aside.is_dir() and not aside.is_symlink():
                shutil.rmtree(aside / LEDGER, ignore_errors=True)
                with contextlib.suppress(OSError):
                    remove_own(aside, OWN_FILES)


def _check_publishable(folder: Path, *, overwrite: bool) -> None:
    blocked = [entry.name for entry in folder.iterdir() if entry.name in OWN_FILES and not is_own(entry, OWN_FILES)]
    if blocked:
        raise OccupiedError(f"now contains a folder named {blocked[0]}; nothing was written", "move it away")
    try:
        _check_own(folder, overwrite=overwrite)
    except OccupiedError as exc:
        raise OccupiedError(f"{exc}, added meanwhile; nothing was written", exc.fix) from exc
