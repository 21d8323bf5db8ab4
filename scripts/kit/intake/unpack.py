"""A file's bytes: counted, hashed and decompressed while they are read, in bounded memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import zstandard

if TYPE_CHECKING:
    from collections.abc import Callable

_BUFFER_BYTES = 1 << 20
_DEEPEST = 3  # layers of compression: one is usual, two happen, more are an attack
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
# Recognised by the first bytes, but not supported.
FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"ARROW1": "an Arrow file",
    b"Obj\x01": "an Avro file",
}
# data/sample compresses to a fifteenth. What compresses to a sixtieth repeats itself or is an attack: each row costs as
# much time as any other.
MOST_GROWTH = 60
GROWTH_COUNTS_FROM = 1 << 24  # bytes; below it any growth is harmless
_AGAIN = "compress or download the file again"
_ZSTD_PIECE_BYTES = 1 << 10  # four bytes unpack to 128 kB at most, so this to 32 MB, never a whole bomb
_ZSTD_WINDOW_BYTES = 1 << 27  # 128 MB, as `zstd --long` needs: the most memory a file may demand


class FileError(ValueError):
    """From ``line`` on (0: not known) a file cannot be read, so its rows cannot even be counted."""

    def __init__(self, line: int, message: str, fix: str) -> None:
        """Keep the parts apart, as findings show them; the message is the file's predicate."""
        super().__init__(message)
        self.line, self.fix = line, fix


class CountedFile(io.RawIOBase):
    """A binary file that counts (``read_bytes``) and hashes what is read through it."""

    def __init__(self, file: BinaryIO, progress: Callable[[int], None] | None = None) -> None:
        """Wrap ``file``; ``progress`` is called with each read's size in bytes."""
        super().__init__()
        self.read_bytes = 0
        self._file = file
        self._progress = progress
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read some bytes."""
        data = self._file.read(len(buffer))
        size = len(data)
        buffer[:size] = data
        self._hash.update(data)
        self.read_bytes += size
        if self._progress and size:
            self._progress(size)
        return size

    def sha256(self) -> str:
        """Return the hash of what has been read."""
        return self._hash.hexdigest()

    def drain(self) -> None:
        """Read the rest, so that the hash is that of the whole file."""
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        while self.readinto(buffer):
            pass


class _ZstdFrames:
    """Consecutive zstd frames; the library's own reader takes a truncated frame for a complete one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        self._frame = self._decompressor.decompressobj()
        self._left = memoryview(b"")

    def read1(self, size: int) -> bytes:
        while not self._left:
            packed = (self._frame.unused_data if self._frame.eof else b"") or self._file.read(_ZSTD_PIECE_BYTES)
            if not packed:
                if self._frame.eof:
                    return b""
                raise EOFError
            if self._frame.eof:
                self._frame = self._decompressor.decompressobj()
            self._left = memoryview(self._frame.decompress(packed))
        data, self._left = self._left[:size], self._left[size:]
        return bytes(data)


class _Unpacked(io.RawIOBase):
    """Decompressed bytes, with the libraries' errors as ``FileError``."""

    def __init__(self, file: BinaryIO, kind: str, packed_bytes: Callable[[], int]) -> None:
        super().__init__()
        self._kind = kind
        self._packed_bytes = packed_bytes
        self._unpacked_bytes = 0
        if kind == "gzip":
            self._file: Any = gzip.GzipFile(fileobj=file)
        else:
            self._file = _ZstdFrames(file)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._file.read1(len(buffer))  # so that data before a break is still returned
        except EOFError as exc:
            raise FileError(0, f"ends in the middle of its {self._kind} data", _AGAIN) from exc
        except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as exc:
            raise FileError(0, f"contains broken {self._kind} data", _AGAIN) from exc
        self._unpacked_bytes += len(data)
        if self._unpacked_bytes > max(GROWTH_COUNTS_FROM, MOST_GROWTH * self._packed_bytes()):
            raise FileError(
                0,
                f"unpacks to more than {MOST_GROWTH} times its size",
                "if this is intended, unpack it yourself and name the unpacked file",
            )
        buffer[: len(data)] = data
        return len(data)


def unpacked(file: CountedFile) -> io.BufferedReader[Any]:
    """Decompress gzip and zstd, recognised by their first bytes, also nested.

    Raises:
        FileError: There are too many layers; while reading, the data is broken or unpacks to far more than its size.
    """
    buffered: io.BufferedReader[Any] = io.BufferedReader(cast("io.RawIOBase", file), _BUFFER_BYTES)
    for _ in range(_DEEPEST):
        kind = next((kind for magic, kind in _PACKED.items() if buffered.peek(4).startswith(magic)), None)
        if kind is None:
            return buffered
        buffered = io.BufferedReader(
            _Unpacked(cast("BinaryIO", buffered), kind, lambda: file.read_bytes), _BUFFER_BYTES
        )
    raise FileError(0, f"is compressed more than {_DEEPEST} times", _AGAIN)
