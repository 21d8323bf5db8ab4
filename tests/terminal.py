"""A program on a real terminal: what a person types, and what they then see."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn, Self

from kit.cli.command import run_main

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INTERRUPT, END = "\x03", "\x04"  # what Ctrl-C and Ctrl-D send


def _run_as_a_command(main: Callable[[], int]) -> NoReturn:
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", 1), open(2, "w", 1)  # noqa: SIM115 - the terminal's
    code = 1
    try:
        run_main(main)
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:  # noqa: BLE001 - as Python itself ends
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Terminal:
    """A child process whose stdin, stdout and stderr are a pseudo-terminal, its own controlling one."""

    def __init__(self, command: Sequence[str] | Callable[[], int], **environment: str) -> None:
        """Begin a program, or a command's ``main`` in a copy of this process, which has the libraries loaded."""
        self.pid, self._screen = pty.fork()
        if self.pid == 0:
            if callable(command):
                os.environ.update(TERM="xterm", **environment)
                _run_as_a_command(command)
            os.execvpe(command[0], list(command), {**os.environ, "TERM": "xterm", **environment})  # noqa: S606
        self.text = ""  # everything shown so far
        self._seen = 0

    def type(self, text: str) -> None:
        """Type; a line ends in a line break."""
        os.write(self._screen, text.encode())

    def wait_for(self, pattern: str, seconds: float = 120) -> str:
        """Wait until something new on the screen matches, and return everything new up to there."""
        deadline = time.monotonic() + seconds
        while not (found := re.compile(pattern).search(self.text, self._seen)):
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"no {pattern!r} in:\n{self.text[self._seen :]}\nbefore it:\n{self.text}")
        new = self.text[self._seen : found.end()]
        self._seen = found.end()
        return new

    def interrupt_until(self, pattern: str, tries: int = 20) -> str:
        """Type Ctrl-C until something matches.

        A signal that comes after readline has drawn its prompt and before it listens is heard with the next key only.
        """
        for _ in range(tries):
            self.type(INTERRUPT)
            try:
                return self.wait_for(pattern, seconds=5)
            except AssertionError:
                continue
        return self.wait_for(pattern, seconds=5)

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._screen], [], [], seconds)
        try:
            data = os.read(self._screen, 65536) if ready else b""
        except OSError:  # how Linux says that the other end is closed
            data = b""
        self.text += data.decode(errors="replace")
        return bool(data)

    def close(self) -> None:
        """Go away, as a window does that is closed: the program is told (SIGHUP), and can write no more."""
        os.close(self._screen)
        self._screen = -1

    def exit_code(self) -> int:
        """Wait for the end, showing what still comes."""
        while self._screen >= 0 and self._read(60):
            continue
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        except ChildProcessError:  # it was waited for already
            pass
        if self._screen >= 0:
            self.close()
