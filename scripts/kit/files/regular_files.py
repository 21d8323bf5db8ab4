"""Opening files for reading, and only files: a pipe waits for ever, a device never ends."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader, FileIO
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

# What is read whole. The largest tokenizers take 35 MB, a receipt or an index some kilobytes.
MOST_BYTES = 256 << 20
_BUFFER_BYTES = 1 << 17

T = TypeVar("T")

NOT_REGULAR = "a pipe, a socket or a device, not a regular file"


class NotRegularError(OSError):
    """Something else than a file, which may give nothing for ever, or something."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file, wherever links lead to it.

    Raises:
        OSError: It is something else, or cannot be opened.
    """
    _check(path, path.stat().st_mode)  # before it is opened: some devices do something then
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(path, os.fstat(descriptor).st_mode)  # what the path leads to may have changed in between
    except OSError:
        os.close(descriptor)
        raise
    return BufferedReader(_File(descriptor, path), _BUFFER_BYTES)


class _File(FileIO):
    """A file that gives something or ends; some of the kernel's, such as /proc/kmsg, do neither for hours."""

    def __init__(self, descriptor: int, path: Path) -> None:
        super().__init__(descriptor)
        self._path = path

    def readinto(self, buffer: Any) -> int:
        size: int | None = super().readinto(buffer)
        return self._given(size)

    def readall(self) -> bytes:
        return self._given(super().readall())

    def _given(self, read: T | None) -> T:
        if read is None:
            raise NotRegularError(errno.EINVAL, "it yields no data and no end of file", str(self._path))
        return read


def _check(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise NotRegularError(errno.EINVAL, f"it is {NOT_REGULAR}", str(path))


def read_regular(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a regular file whole.

    Raises:
        OSError: See ``open_regular``; or it is larger than ``most``.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EOVERFLOW, f"it exceeds {most >> 20} MB", str(path))
    return content


def read_text(path: Path) -> str:
    """Read a regular file whole, as UTF-8 with any kind of line end.

    Raises:
        OSError: See ``read_regular``.
        UnicodeDecodeError: It is not UTF-8.
    """
    return read_regular(path).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
