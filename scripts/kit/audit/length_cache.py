"""Cache of token lengths on disk.

An entry's key is a hash of all that a length depends on: the rows' text, the tokenizer, the template, the sequence
length and the counting code's version. If anything is wrong with the file, rows are counted again, without an error.
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
from kit.data.conversations import RowProblem
from kit.data.encoding import encode_rows, trained_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.conversations import Conversation

DEFAULT = PROJECT_ROOT / ".cache" / "kit" / "lengths.sqlite3"
LARGEST_BYTES = 64 << 20  # some 5 million rows; the oldest entries go first
_CODE = 2  # raise it when lengths, spans or flags are counted differently
_HEAD = struct.Struct("<II")  # rows, checksum of what follows
_EACH = 3  # numbers per row


class Length(NamedTuple):
    """A row's tokens before truncation, its tokens with loss after it, and its marks."""

    tokens: int
    trained: int
    marks: int


class LengthCache:
    """The file, opened once in each process."""

    def __init__(self, path: Path | None, fingerprint: str, max_seq_length: int) -> None:
        """Open or make the file; with ``path`` None nothing is cached."""
        self._key = hashlib.blake2b(f"{_CODE} {fingerprint} {max_seq_length}".encode(), digest_size=32).digest()
        self._database = _open(path) if path else None
        self._used = 0

    def key(self, texts: Iterable[bytes]) -> bytes:
        """Hash some rows, in order, with everything else their lengths depend on."""
        digest = hashlib.blake2b(key=self._key, digest_size=20)
        for text in texts:
            digest.update(len(text).to_bytes(8, "little"))
            digest.update(text)
        return digest.digest()

    def get(self, key: bytes) -> list[Length] | None:
        """Return the entry of a key; None if there is none or it is damaged."""
        if self._database is None:
            return None
        try:
            found = self._database.execute("SELECT value FROM lengths WHERE key = ?", (key,)).fetchone()
            return _unpack(found[0]) if found and isinstance(found[0], bytes) else None
        except sqlite3.Error:
            self._database = None
            return None

    def put(self, key: bytes, lengths: Sequence[Length]) -> None:
        """Store some rows' lengths."""
        if self._database is None:
            return
        try:
            self._database.execute("INSERT OR REPLACE INTO lengths (key, value) VALUES (?, ?)", (key, _pack(lengths)))
            self._used += 1
            if self._used % 64 == 1:
                _drop_oldest(self._database)
        except sqlite3.Error:  # full disk, deleted file, or locked by another process for too long
            self._database = None


class TokenCounter:
    """Measures conversations; cached ones take a few microseconds."""

    def __init__(self, tokenizer: ChatTokenizer, max_seq_length: int, cache: Path | None) -> None:
        """Measure at a sequence length; ``cache`` None measures anew each time."""
        self.tokenizer = tokenizer
        self.max_seq_length = max_seq_length
        self._cache = LengthCache(cache, tokenizer.fingerprint, max_seq_length)

    def measure(self, conversations: Sequence[Conversation], texts: Sequence[bytes]) -> list[Length | RowProblem]:
        """Return each one's length, or why the template rejects it; ``texts`` (turns as bytes) make the cache's key."""
        if not conversations:
            return []
        key = self._cache.key(texts)
        known = self._cache.get(key)
        if known is not None and len(known) == len(conversations):
            return list(known)
        measured = [
            row
            if isinstance(row, RowProblem)
            else Length(len(row.ids), trained_tokens(row.answers, self.max_seq_length), int(row.marks))
            for row in encode_rows(conversations, self.tokenizer)
        ]
        lengths = [length for length in measured if isinstance(length, Length)]
        if len(lengths) == len(measured):  # a rejection is not cached: its message belongs to the row
            self._cache.put(key, lengths)
        return measured


def _drop_oldest(database: sqlite3.Connection) -> None:
    """Keep the file below its limit."""
    (size,) = database.execute("SELECT COALESCE(SUM(LENGTH(value) + 64), 0) FROM lengths").fetchone()
    if size > LARGEST_BYTES:
        database.execute(
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
