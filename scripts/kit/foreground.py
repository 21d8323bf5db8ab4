"""Waiting for a process in the foreground: signals are passed on to it, and its exit code comes back.

Standard library only, and for Python 3.9 on.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable


def wait_for(
    process: subprocess.Popen[bytes], signals: Iterable[signal.Signals], pass_on: Callable[[int, object], None]
) -> int:
    """Wait for a process to end.

    Args:
        process: It should have a session of its own: Ctrl-C reaches a whole process group.
        signals: Which are taken meanwhile. One that is ignored stays so: nohup, and a shell's background jobs.
        pass_on: Called with the number of one that came.

    Returns:
        Its exit code; 128 and the signal's number where one ended it.
    """
    heard = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heard}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code
