"""The moments at which a forked run is struck from within: its file operations, and its calls while it loads."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from kit.run_directory.names import METRICS
from kit.supervise.stop import StopRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

_FILE_EVENTS = frozenset({"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.copyfile"})


def _at_file_operations(output: Path, strike: Callable[[bool], None]) -> None:
    """Call ``strike`` before each file operation in a run's folder, with whether the run trains already."""
    trains, metrics = False, str(output / METRICS)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal trains
        if event in _FILE_EVENTS and str(output) in str(arguments[0]):
            trains = trains or (event == "open" and str(arguments[0]) == metrics and arguments[1] == "a")
            strike(trains)

    sys.addaudithook(hook)


def die_at_file_operation(output: Path, countdown: int, *, from_start: bool) -> None:
    """Send SIGKILL before that operation, counted from the first step or, ``from_start``, from the first at all."""
    left = countdown

    def strike(trains: bool) -> None:
        nonlocal left
        left -= trains or from_start
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    _at_file_operations(output, strike)


def count_file_operations(output: Path) -> None:
    """Keep the number of operations while the run trained, in a file beside its folder."""
    count = 0
    descriptor = os.open(f"{output}.operations", os.O_WRONLY | os.O_CREAT)

    def strike(trains: bool) -> None:
        nonlocal count
        count += trains
        os.pwrite(descriptor, str(count).encode(), 0)

    _at_file_operations(output, strike)


def stop_at_call(countdown: int) -> None:
    """Send SIGTERM at that call or return of Python's, counted from where the run begins to listen for signals."""
    left = countdown

    def strike() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGTERM)

    _at_calls(strike, until=lambda: None)


def count_calls(kept_in: Path) -> None:
    """Count the calls and returns while a run cannot save yet, keep the number in a file, and end the process."""
    count = 0

    def strike() -> None:
        nonlocal count
        count += 1

    def end() -> None:
        kept_in.write_text(str(count), encoding="utf-8")
        os._exit(0)

    _at_calls(strike, until=end)


def _at_calls(strike: Callable[[], None], until: Callable[[], None]) -> None:
    begin = inspect.unwrap(StopRequest.listening).__code__
    end = StopRequest.defer_signals.__code__
    has_begun = False

    def hook(frame: FrameType, _event: str, _argument: Any) -> None:
        nonlocal has_begun
        has_begun = has_begun or frame.f_code is begin
        if frame.f_code is end:
            sys.setprofile(None)
            until()
        elif has_begun:
            strike()

    sys.setprofile(hook)
