"""One process in one folder at a time: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from filelock import SoftFileLock

NAME = ".lock"
# What a file system without flock answers, such as Lustre mounted without it, or NFS without its lock daemon.
_NO_FLOCK = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_PATIENCE_S = 0.5  # a dead holder's file is replaced in two looks


@dataclass(frozen=True)
class Holder:
    """Who has a lock.

    Attributes:
        name: ``process 12 on host``; empty where it has just begun.
        file: What a person removes once that process is gone; None where the kernel sees to it.
    """

    name: str
    file: Path | None = None


class FolderLock:
    """An ``flock`` on a file in a folder: the kernel releases it when the holder dies.

    Where the file system has none, the file itself is the lock: it is made by one process alone, and names its process,
    that one's start and its host, so that a later run there sees whether it is gone. Only of another host that cannot
    be seen; then a person has to say so, by removing the file.
    """

    def __init__(self, folder: Path) -> None:
        """Lock nothing yet.

        Args:
            folder: Made where it is missing.
        """
        self.path = folder / NAME
        self._descriptor: int | None = None
        self._file: SoftFileLock | None = None

    def acquire(self) -> Holder | None:
        """Take the lock, or return who has it. Never waits.

        Raises:
            OSError: The folder cannot be written to.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 200).decode(errors="replace").strip()
                os.close(descriptor)
                return Holder(holder)
            except OSError as exc:
                if not os.fstat(descriptor).st_size:  # made for the question alone
                    self.path.unlink(missing_ok=True)
                os.close(descriptor)
                if exc.errno not in _NO_FLOCK:
                    raise
                return self._acquire_file()
            if self._is_still_there(descriptor):
                break
            os.close(descriptor)  # its holder removed the file between our open and our lock
        self._descriptor = descriptor
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        return None

    def _acquire_file(self) -> Holder | None:
        from filelock import SoftFileLock, Timeout

        place = self.path.with_name(f"{NAME}.held")
        lock = SoftFileLock(place, timeout=_PATIENCE_S)
        try:
            lock.acquire()
        except Timeout:
            process, host = _holder_in(place)
            return Holder(f"process {process} on {host}", place)
        self._file = lock
        return None

    def _is_still_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Release the lock, and remove the file while it is still ours."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.release()
            self._file = None


def _holder_in(place: Path) -> tuple[str, str]:
    """Read which process holds a lock that is a file, and where it runs."""
    try:
        process, host, *_ = place.read_bytes()[:1000].decode(errors="replace").split("\n")
    except (OSError, ValueError):
        return "unknown", "an unknown host"
    return process, host
