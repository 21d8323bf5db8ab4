"""Where rows come from: files, folders, globs, standard input and Hugging Face datasets, in a fixed order."""

from __future__ import annotations

import glob
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, skipped, warning
from kit.files.regular_files import NOT_REGULAR

if TYPE_CHECKING:
    from collections.abc import Iterator

STDIN = "-"
HUB = "hf:"
FORMAT_OF_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
PACKED_SUFFIXES = frozenset({".gz", ".zst", ".zstd"})
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
OWN_REPORTS = frozenset({"data_card.json", "rejects.jsonl", "dataset_infos.json"})  # about data, not data
_NAMES_SHOWN = 4
_ANY_DEPTH = re.compile(r"(?<![^/])\*\*/+")


@dataclass(frozen=True)
class Source:
    """One thing to read.

    Attributes:
        name: As the user wrote it, or as found in their folder; shown in findings and the card.
        kind: ``file``, ``stdin`` or ``hub``.
        path: The file; for a Hugging Face dataset its name or folder; None for standard input.
    """

    name: str
    kind: str
    path: str | None = None


def find_sources(inputs: list[str], exclude: Path | None = None) -> tuple[list[Source], list[Finding]]:
    """Find everything the inputs name, each file once, in the order of the inputs and by name within each.

    Args:
        inputs: Files, folders, globs, ``-`` and ``hf:NAME`` (or ``owner/name`` if there is no such path).
        exclude: A folder that is not read, such as the output folder.
    """
    search = _Search(exclude.resolve() if exclude else None)
    for name in inputs:
        search.add(name)
    return search.sources, search.findings


class _Search:
    def __init__(self, exclude: Path | None) -> None:
        self.sources: list[Source] = []
        self.findings: list[Finding] = []
        self._exclude = exclude
        self._seen: dict[tuple[int, int], str] = {}
        self._walked: set[tuple[int, int]] = set()  # below the current input folder
        self._met_again: list[str] = []

    def add(self, name: str) -> None:
        if name == STDIN:
            if any(source.kind == "stdin" for source in self.sources):
                self._error("data.input", "is named twice", "name it once", STDIN)
            else:
                self.sources.append(Source("stdin", "stdin"))
            return
        if name.startswith(HUB):
            self.sources.append(Source(name, "hub", name.removeprefix(HUB)))
            return
        try:
            path = Path(name).expanduser()
            if path.is_dir():
                self._folder(path)
            elif os.path.lexists(path):
                self._file(path, str(path))
            elif matches := _matches(str(path)):
                for match in matches:
                    found = Path(match)
                    self._folder(found) if found.is_dir() else self._file(found, match)
            elif _HUB_NAME.fullmatch(name) and not glob.has_magic(name) and not path.parent.is_dir():
                self.sources.append(Source(f"{HUB}{name}", "hub", name))
            else:
                self._error("data.missing", "no such file or folder", "check the name", name)
        except (OSError, ValueError, RuntimeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else exc
            self._error("data.unreadable", f"cannot be read ({reason})", "check its name and permissions", name)

    def _file(self, path: Path, name: str) -> None:
        try:
            status = path.stat()
        except OSError as exc:
            reason = "a broken link" if path.is_symlink() else exc.strerror
            self._error("data.unreadable", f"cannot be read ({reason})", "fix it, or omit it", name)
            return
        if not stat.S_ISREG(status.st_mode):
            fix = f"save it to a file, or pipe it in: … | make data INPUT={STDIN}"
            self._error("data.unreadable", f"is {NOT_REGULAR}", fix, name)
            return
        if self._exclude and path.resolve().parent == self._exclude:
            fix = "--out another folder, or move it away first"
            self._error("data.own_output", "is in the output folder and would be replaced", fix, name)
            return
        identity = (status.st_dev, status.st_ino)
        if identity in self._seen:
            what = f"is the same file as {self._seen[identity]}, read once"
            self.findings.append(warning("data.same_file", what, "name it once", name))
            return
        self._seen[identity] = name
        self.sources.append(Source(name, "file", str(path)))

    def _folder(self, folder: Path) -> None:
        if is_saved_dataset(folder):
            self.sources.append(Source(f"{HUB}{folder}", "hub", str(folder)))
            return
        before, others = len(self.sources), []
        self._walked, self._met_again = set(), []
        for path in self._walk(folder, frozenset()):
            if is_data(path.name):
                self._file(path, str(path))
            else:
                others.append(path.name)
        if self._met_again:
            what = f"{len(self._met_again)} links lead to folders already read: {_first(self._met_again)}"
            self.findings.append(warning("data.same_folder", what, "name each folder once", str(folder)))
        if others:
            what = f"{len(others)} files of other kinds were not read: {_first(others)}"
            self.findings.append(skipped("data.other_files", what, where=str(folder)))
        if len(self.sources) == before and not any(finding.severity == "error" for finding in self.findings):
            known = ", ".join(sorted(FORMAT_OF_SUFFIX))
            self._error("data.missing", f"contains no data: no {known} file", "name the files themselves", str(folder))

    def _walk(self, folder: Path, above: frozenset[tuple[int, int]]) -> list[Path]:
        """List files below a folder by name, following links but no loops."""
        try:
            status = folder.stat()
            entries = sorted(folder.iterdir())
        except OSError as exc:
            self._error("data.unreadable", f"cannot be read ({exc.strerror})", "make it readable", str(folder))
            return []
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            self._error("data.folder_loop", "leads back to a folder above it", "remove the link", str(folder))
            return []
        if identity in self._walked:  # links can name a few folders in millions of ways
            self._met_again.append(str(folder))
            return []
        self._walked.add(identity)
        if self._exclude and folder.resolve() == self._exclude:
            self.findings.append(skipped("data.own_output", "is the output folder, not read", where=str(folder)))
            return []
        files: list[Path] = []
        for entry in entries:
            if entry.name.startswith((".", "_")):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself
                is_folder = False
            files += self._walk(entry, above | {identity}) if is_folder else [entry]
        return files

    def _error(self, id: str, message: str, fix: str, where: str) -> None:  # noqa: A002 - the field's own name
        self.findings.append(error(id, message, fix, where))


def _first(names: list[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")


def _matches(pattern: str) -> list[str]:
    """Return the matches as ``glob`` does, but ``**`` visits each folder once, however many links lead to it."""
    found = _ANY_DEPTH.search(pattern)
    if not found:
        return sorted(glob.glob(pattern))  # noqa: PTH207 - absolute patterns too
    head, rest = pattern[: found.start()], pattern[found.end() :]
    folders = {folder for start in glob.glob(head or ".") for folder in _folders_below(start)}  # noqa: PTH207
    return sorted({match for folder in folders for match in _matches(str(Path(glob.escape(folder), rest)))})


def _folders_below(start: str) -> Iterator[str]:
    seen = set()
    for folder, names, _ in os.walk(start, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            names.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield folder


def is_saved_dataset(folder: Path) -> bool:
    """Tell whether ``Dataset.save_to_disk`` wrote a folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def is_data(name: str) -> bool:
    """Tell by its name whether a file in a folder contains rows."""
    return suffix_of(name) in FORMAT_OF_SUFFIX and name not in OWN_REPORTS


def suffix_of(name: str) -> str:
    """Return the suffix of the format, without that of a compression: ``.jsonl`` for ``a.jsonl.gz``."""
    path = Path(name.lower())
    while path.suffix in PACKED_SUFFIXES:
        path = path.with_suffix("")
    return path.suffix
