"""Token lengths that were counted before, kept on disk and never stale.

What is kept under a key was computed from exactly what the key is a hash of: the rows' text, the tokenizer, the
template, the length and the code that counts. Anything wrong with the file means counting again, never an error.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
import zlib
from array import array
from typing import TYPE_CHECKING, NamedTuple

from kit.cli.interpreter import PROJECT_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

DEFAULT = PROJECT_ROOT / ".cache" / "kit" / "lengths.sqlite3"
LARGEST_BYTES = 64 << 20  # some 5 million rows; what was not used for longest goes first
_CODE = 2  # raise it when lengths, spans or flags are counted differently
_HEAD = struct.Struct("<II")  # rows, checksum of what follows
_EACH = 3  # numbers a row


class Length(NamedTuple):
    """What is counted of a row: its tokens before any cut, those the loss is taken on after it, and its marks."""

    tokens: int
    trained: int
    marks: int


class LengthCache:
    """The file, opened once in each process."""

    def __init__(self, path: Path | None, fingerprint: str, max_seq_length: int) -> None:
        """Open or make the file; ``path`` None keeps nothing."""
        self._key = hashlib.blake2b(f"{_CODE} {fingerprint} {max_seq_length}".encode(), digest_size=32).digest()
        self._database = _open(path) if path else None
        self._used = 0

    def key(self, texts: Iterable[bytes]) -> bytes:
        """Hash some rows, in their order, with everything else their lengths depend on."""
        digest = hashlib.blake2b(key=self._key, digest_size=20)
        for text in texts:
            digest.update(len(text).to_bytes(8, "little"))
            digest.update(text)
        return digest.digest()

    def get(self, key: bytes) -> list[Length] | None:
        """Return what is kept under a key, where it is whole."""
        if self._database is None:
            return None
        try:
            found = self._database.execute("SELECT value FROM lengths WHERE key = ?", (key,)).fetchone()
            return _unpack(found[0]) if found and isinstance(found[0], bytes) else None
        except sqlite3.Error:
            self._database = None
            return None

    def put(self, key: bytes, lengths: Sequence[Length]) -> None:
        """Keep some rows' lengths."""
        if self._database is None:
            return
        try:
            self._database.execute("INSERT OR REPLACE INTO lengths (key, value) VALUES (?, ?)", (key, _pack(lengths)))
            self._used += 1
            if self._used % 64 == 1:
                self._forget()
        except sqlite3.Error:  # full disk, a file that was taken away, another process that holds it for too long
            self._database = None

    def _forget(self) -> None:
        """Drop the oldest entries once the file is too large."""
        if self._database is None:
            return
        (size,) = self._database.execute("SELECT COALESCE(SUM(LENGTH(value) + 64), 0) FROM lengths").fetchone()
        if size > LARGEST_BYTES:
            self._database.execute(
                "DELETE FROM lengths WHERE rowid IN (SELECT rowid FROM lengths ORDER BY rowid "
                "LIMIT (SELECT COUNT(*) / 4 FROM lengths))"
            )


def _open(path: Path) -> sqlite3.Connection | None:
    for attempt in range(2):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(path, timeout=5, isolation_level=None)
            # Speed over safety: what a crash destroys is counted again.
            database.execute("PRAGMA synchronous = OFF")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE IF NOT EXISTS lengths (key BLOB PRIMARY KEY, value BLOB)")
        except sqlite3.DatabaseError as exc:
            if attempt or isinstance(exc, sqlite3.OperationalError):
                return None
            try:
                os.unlink(path)  # not a database, or a broken one  # noqa: PTH108
            except OSError:
                return None
        except OSError:
            return None
        else:
            return database
    return None


def _pack(lengths: Sequence[Length]) -> bytes:
    flat = array("I", [number for length in lengths for number in length])
    body = flat.tobytes()
    return _HEAD.pack(len(lengths), zlib.crc32(body)) + body


def _unpack(value: bytes) -> list[Length] | None:
    if len(value) < _HEAD.size:
        return None
    rows, checksum = _HEAD.unpack_from(value)
    body = value[_HEAD.size :]
    if len(body) != rows * _EACH * 4 or zlib.crc32(body) != checksum:
        return None
    flat = array("I", body)
    return [Length(*flat[at : at + _EACH]) for at in range(0, len(flat), _EACH)]
