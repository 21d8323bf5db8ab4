"""One source as a stream of rows, whatever its compression and format."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from kit.data.conversations import RowProblem, read_lines
from kit.files.digest import file_sha256
from kit.files.regular_files import open_regular
from kit.intake.hub import read_hub
from kit.intake.json_values import read_values
from kit.intake.sources import FORMAT_OF_SUFFIX, suffix_of
from kit.intake.tables import read_csv, read_parquet
from kit.intake.unpack import FOREIGN, CountedFile, FileError, unpacked

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

    from kit.intake.sources import Source

FORMATS = tuple(dict.fromkeys(FORMAT_OF_SUFFIX.values()))
_MARKS = (b"\xff\xfe", b"\xfe\xff")
_PEEKED = 4096

Raw = tuple[int, Any] | RowProblem


@dataclass
class Stream:
    """One source being read.

    Attributes:
        split: Of a Hugging Face dataset, as ``revision`` is.
        format: None until it is recognised, or given by the user.
        rows: Yielded so far, including problems.
        sha256: Of the file's bytes, or of a dataset's rows; empty until all are read.
        broken: Why the rest could not be read.
    """

    source: Source
    split: str = "train"
    revision: str | None = None
    format: str | None = None
    rows: int = 0
    sha256: str = ""
    broken: FileError | None = None
    progress: Callable[[int], None] | None = field(default=None, repr=False)

    def __iter__(self) -> Iterator[Raw]:
        """Yield (line, row) or a problem; a row that still needs parsing is bytes.

        An error in the middle of a file goes to ``broken``, so that the rows before it are still checked.

        Raises:
            OSError: The source cannot be opened or read at all.
        """
        try:
            for item in self._items():
                self.rows += 1
                yield item
        except FileError as exc:
            exc.line = exc.line or max(self.rows, 1)
            self.broken = exc

    def _items(self) -> Iterator[Raw]:
        source = self.source
        if source.kind == "hub":
            self.format = "dataset"
            yield from self._dataset()
            return
        with contextlib.ExitStack() as stack:
            file = sys.stdin.buffer if source.path is None else stack.enter_context(open_regular(Path(source.path)))
            counted = CountedFile(cast("BinaryIO", file), self.progress)
            content = unpacked(counted)
            packed = not isinstance(content.raw, CountedFile)
            head = content.peek(_PEEKED)
            self.format = self.format or FORMAT_OF_SUFFIX.get(suffix_of(source.name)) or self._guess(head)
            if not head:
                counted.drain()
                self.sha256 = counted.sha256()
                return
            if head.startswith(b"PAR1") or self.format == "parquet":
                yield from self._parquet(packed=packed, head=head)
                return
            foreign = next((what for magic, what in FOREIGN.items() if head.startswith(magic)), None)
            if foreign:
                raise FileError(1, f"is {foreign}, which is not supported", "unpack it, or write it as JSONL")
            yield from self._text(content, head)
            counted.drain()
            self.sha256 = counted.sha256()

    def _dataset(self) -> Iterator[Raw]:
        digest = hashlib.sha256()
        for item in read_hub(self.source.path or "", self.split, self.revision):
            row = repr(item) if isinstance(item, RowProblem) else item[1]
            digest.update(json.dumps(row, sort_keys=True, ensure_ascii=True, default=repr).encode())
            if self.progress:
                self.progress(1)
            yield item
        self.sha256 = digest.hexdigest()

    def _guess(self, head: bytes) -> str:
        start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if start.startswith(b"PAR1"):
            return "parquet"
        if start.startswith(b"["):
            return "json"
        if start.startswith(b"{") or not start or head.startswith(_MARKS):
            return "jsonl"
        first = start.split(b"\n", 1)[0]
        if any(delimiter in first for delimiter in (b",", b";", b"\t")) and b"{" not in first:
            return "csv"
        formats = ", ".join(FORMATS)
        raise FileError(1, "is in no known format", f"if it is one of these, name it with --format: {formats}")

    def _text(self, content: io.BufferedReader, head: bytes) -> Iterator[Raw]:
        if head.startswith(_MARKS):
            raise FileError(1, "is UTF-16", "save the file as UTF-8")
        if self.format in {"csv", "tsv"}:
            yield from read_csv(content, tabs=self.format == "tsv")
        elif self.format == "json":
            yield from read_values(content)
        else:
            yield from read_lines(content)

    def _parquet(self, *, packed: bool, head: bytes) -> Iterator[Raw]:
        self.format = "parquet"
        if self.source.path is None or packed:
            raise FileError(1, "is Parquet that is compressed or piped, but Parquet needs a file", "unpack it first")
        if not head.startswith(b"PAR1"):
            raise FileError(1, "is not a Parquet file", "rename it, or name its format with --format")
        yield from read_parquet(self.source.path)
        self.sha256 = file_sha256(Path(self.source.path))
        if self.progress:
            self.progress(Path(self.source.path).stat().st_size)
