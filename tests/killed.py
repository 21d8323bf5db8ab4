"""A child that dies by SIGKILL in front of one of its file operations."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_OPERATIONS = ("open", "mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "close", "scandir", "listdir")


def killed_at(countdown: int, act: Callable[[], object]) -> bool:
    """Do something in a child that dies at the file operation of this number; tell whether it came that far."""
    child = os.fork()
    if child == 0:
        left = countdown

        def mortal(original: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return original(*args, **kwargs)

            return call

        for name in _OPERATIONS:
            setattr(os, name, mortal(getattr(os, name)))
        try:
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL
