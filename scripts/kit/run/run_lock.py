"""One run in one folder at a time: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from typing import TYPE_CHECKING

from kit.findings import Finding, error

if TYPE_CHECKING:
    from pathlib import Path

NAME = ".lock"


class RunLock:
    """An ``flock`` on a file in the run's folder: the kernel lets go of it when the holder dies."""

    def __init__(self, folder: Path) -> None:
        """Lock nothing yet.

        Args:
            folder: The run's folder; made where it is missing.
        """
        self.path = folder / NAME
        self._descriptor: int | None = None

    def acquire(self) -> list[Finding]:
        """Take the lock, or say who has it. Never waits.

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
                return [
                    error(
                        "run.locked",
                        f"another run is under way in this folder ({holder or 'it has just begun'})",
                        "wait for it, stop it, or give this run a name of its own: training.run_name=…",
                        str(self.path.parent),
                    )
                ]
            if self._is_still_there(descriptor):
                break
            os.close(descriptor)  # its holder removed the file between our open and our lock
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._descriptor = descriptor
        return []

    def _is_still_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let go, and remove the file while it is still ours."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
