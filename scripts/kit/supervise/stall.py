"""A thread that notices a stalled step and records every thread's stack.

Only time in which this process ran counts. The clock is monotonic, so setting the machine's time changes nothing; and a
gap between two looks counts as no more than two looks, so a laptop that slept, a container that was frozen and a
process that was stopped with SIGSTOP have not stalled. A call that keeps Python's lock while it hangs keeps this thread
from looking as well, and is not noticed.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Protocol, Self

import psutil

from kit.cli.console import duration
from kit.cli.failures import ExplainedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The first step compiles, rehearses the largest micro-batch and fills caches.
FIRST_STEP = 6
# Steps are of unlike length; ten times the usual one is not among them.
TIMES_THE_USUAL = 10
_REMEMBERED = 50
# From the warning to the end: a step that finishes within this time goes on.
GRACE_S = 60.0
# Writing down how it ended may hang on the same disk as the step does.
LAST_WORDS_S = 10.0
LONGEST_LOOK_S = 5.0


@dataclass(frozen=True)
class Stall:
    """A piece of work that does not end.

    Attributes:
        limit_seconds: From when on that counts as a stall.
        stands: Where every thread stands, the training's first.
    """

    doing: str
    seconds: float
    limit_seconds: float
    stands: str


class StalledError(ExplainedError):
    """A stalled step ended the run."""

    finding_id = "run.stalled"
    fix = (
        "check the stack traces in stalled.txt (disk, network file system or GPU driver?); raise "
        "training.stall_timeout, or set training.on_stall=warn to keep the run going"
    )


class Heartbeat:
    """Counts how long nothing has been finished, in time that this process was awake for."""

    def __init__(self, timeout: float, look_s: float) -> None:
        """Allow every piece of work at least ``timeout`` seconds; look every ``look_s`` seconds."""
        self._timeout, self._look_s = timeout, look_s
        self._beats = self._seen = 0
        self._quiet_s = 0.0
        self._looked: float | None = None
        self._step = -1
        self._step_began: float | None = None
        self._steps_s: deque[float] = deque(maxlen=_REMEMBERED)

    def beat(self, step: int | None, now: float) -> None:
        """Note progress at a monotonic time; ``step`` is the optimizer step under way, None outside of one."""
        self._beats += 1
        if step is not None and step != self._step:
            if self._step_began is not None:
                self._steps_s.append(now - self._step_began)
            self._step, self._step_began = step, now

    def look(self, now: float) -> float:
        """Return the seconds since the last beat; called by the thread that watches, every ``look_s``."""
        gap = 0.0 if self._looked is None else min(now - self._looked, 2 * self._look_s)
        self._looked = now
        if self._beats != self._seen:
            self._seen, self._quiet_s = self._beats, 0.0
        else:
            self._quiet_s += gap
        return self._quiet_s

    @property
    def limit_s(self) -> float:
        """From when on nothing finished is a stall."""
        if not self._steps_s:
            return FIRST_STEP * self._timeout
        return max(self._timeout, TIMES_THE_USUAL * median(self._steps_s))


class Listener(Protocol):
    """Receives stalls, each call in a thread of its own."""

    def stalled(self, found: Stall) -> None:
        """Report a stall."""

    def went_on(self, found: Stall) -> None:
        """Report that the work finished after ``seconds``."""

    def give_up(self, found: Stall) -> None:
        """Complete the receipt: the process ends next."""


class StallWatch:
    """A thread that watches the training's progress, from ``with`` to its end."""

    def __init__(
        self, timeout: float, listener: Listener, doing: Callable[[], str], end: Callable[[], None] | None
    ) -> None:
        """Prepare to watch; ``timeout`` 0 never looks, ``end`` None only warns."""
        self._listener, self._activity, self._end = listener, doing, end
        self._look_s = min(LONGEST_LOOK_S, timeout / 10)
        self._pulse = Heartbeat(timeout, self._look_s)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stall-watch", daemon=True) if timeout else None
        self._inside: str | None = None

    def __enter__(self) -> Self:
        """Start the thread."""
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        """Stop the thread."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def beat(self, step: int | None = None) -> None:
        """Note that something was finished: a micro-batch of a step, or of an evaluation."""
        self._pulse.beat(step, time.monotonic())

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Name what is under way, such as a save, and count its begin and end as something finished."""
        self._inside = what
        self.beat()
        try:
            yield
        finally:
            self._inside = None
            self.beat()

    def _watch(self) -> None:
        reported: Stall | None = None
        telling: threading.Thread | None = None
        last, is_over = 0.0, False
        while not is_over:
            is_over = self._over.wait(self._look_s)  # and one more look: what stalled last may have gone on since
            quiet, limit = self._pulse.look(time.monotonic()), self._pulse.limit_s
            if reported is not None and quiet < reported.seconds:
                on = Stall(reported.doing, max(last, reported.seconds), reported.limit_seconds, "")
                telling = _aside(self._listener.went_on, on, telling)
                reported = None
            if is_over:
                break
            if reported is None and quiet >= limit:
                reported = self._found(quiet, limit)
                telling = _aside(self._listener.stalled, reported, telling)
            elif reported is not None and self._end is not None and quiet >= reported.seconds + GRACE_S:
                _aside(self._listener.give_up, self._found(quiet, limit)).join(LAST_WORDS_S)
                self._end()
            last = quiet
        if telling is not None:
            telling.join(LAST_WORDS_S)

    def _found(self, quiet: float, limit: float) -> Stall:
        return Stall(self._inside or self._activity(), quiet, limit, where_threads_stand())


def _aside(tell: Callable[[Stall], None], found: Stall, earlier: threading.Thread | None = None) -> threading.Thread:
    """Report in a thread of its own, after earlier reports: the disk or the terminal may be what hangs."""

    def say_it() -> None:
        if earlier is not None:
            earlier.join(LAST_WORDS_S)
        tell(found)

    thread = threading.Thread(target=say_it, name="stall-report", daemon=True)
    thread.start()
    return thread


def where_threads_stand() -> str:
    """Return the Python stack of every thread, the main one first, and the process's state."""
    frames, main = sys._current_frames(), threading.main_thread()  # noqa: SLF001 - the one way to ask
    others = [thread for thread in threading.enumerate() if thread is not main]
    lines = [f"process state: {psutil.Process().status()}"]
    for thread in (main, *others):
        frame = frames.get(thread.ident or 0)
        if frame is not None and thread is not threading.current_thread():
            lines += [f"\nthread {thread.name}:\n", *traceback.format_stack(frame)]
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def sentence(found: Stall) -> str:
    """Describe a stall in one sentence."""
    return f"{found.doing} stalled: no progress for {duration(found.seconds)}"
