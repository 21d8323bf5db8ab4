"""What this process needs of main memory, and the most it needed: memory of its own, not the files it has mapped.

Weights that a library maps from their file count as resident as long as nothing else wants the room, and go when it
does: a 7B model in 4 bits shows 20 GB resident where it needs 7. On Linux what is counted is anonymous memory: resident
less shared, which is what files and shared memory back. macOS does not tell those apart; there it is what would be free
again if the process ended, which is the nearest to it.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref

import psutil

_EVERY_S = 0.02  # a large tensor takes longer than that to be filled
_SHARE = 20  # a reading may take this part of the time


def own_bytes() -> int:
    """Return what this process needs now, in bytes."""
    process = psutil.Process()
    if sys.platform == "darwin":
        return int(process.memory_full_info().uss)
    memory = process.memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


class PeakSampler:
    """Looks from a thread how much this process needs: no system says what the most of it was."""

    def __init__(self) -> None:
        """Begin to look."""
        self._seen, self._end = _Seen(), threading.Event()
        self._thread = threading.Thread(target=_look, args=(self._seen, self._end), name="memory", daemon=True)
        weakref.finalize(self, self._end.set)
        self._thread.start()

    def take(self) -> int:
        """Return the most since the last time, in bytes."""
        return self._seen.take()

    def close(self) -> None:
        """Look no longer."""
        self._end.set()
        self._thread.join()


class _Seen:
    """The highest reading, and nothing that would keep its sampler alive."""

    def __init__(self) -> None:
        self._lock, self._highest = threading.Lock(), own_bytes()

    def add(self, now: int) -> None:
        with self._lock:
            self._highest = max(self._highest, now)

    def take(self) -> int:
        now = own_bytes()
        with self._lock:
            highest, self._highest = max(self._highest, now), now
        return highest


def _look(seen: _Seen, end: threading.Event) -> None:
    took = 0.0
    while not end.wait(max(_EVERY_S, _SHARE * took)):
        began = time.perf_counter()
        seen.add(own_bytes())
        took = time.perf_counter() - began
