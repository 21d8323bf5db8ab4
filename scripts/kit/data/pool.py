"""Work on many chunks in parallel, with results in order and a bounded number of them in memory.

Small inputs stay in this process: starting workers takes longer than a few thousand rows.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, TypeVar

from kit.cli.foreground import SIGNALS
from kit.machine.probe import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

C = TypeVar("C")
R = TypeVar("R")

_CHUNKS_HERE = 16
_CHUNKS_AHEAD = 2  # per process: enough to keep it busy, few enough to keep memory flat
_MOST_PROCESSES = 16  # beyond that, the reading process is the bottleneck

_work: Callable[[Any], Any] | None = None


class WorkerDiedError(RuntimeError):
    """A worker process was killed, most likely because memory ran out."""


def processes_for(asked: int | None = None) -> int:
    """Return the number asked for, or one process per usable core."""
    return asked or min(usable_cores(), _MOST_PROCESSES)


def in_order(work: Callable[[C], R], chunks: Iterable[C], processes: int) -> Iterator[R]:
    """Apply ``work`` to every chunk and yield the results in the chunks' order; one process is this one.

    Both must be picklable. Each process gets one copy of ``work``; chunks are read only as far ahead as needed.

    Raises:
        WorkerDiedError: A worker process was killed.
    """
    remaining = iter(chunks)
    first = _CHUNKS_HERE if processes > 1 else None
    for chunk in itertools.islice(remaining, first):
        yield work(chunk)
    following = list(itertools.islice(remaining, 1))
    if not following:
        return
    # The fork server imports what the work needs once; forking this process would break its threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([type(work).__module__, __name__])
    with _undisturbed():  # multiprocessing's helper processes inherit the mask and so outlive a closed window
        pool = ProcessPoolExecutor(processes, context, _start, (work,))
    waiting: deque[Future[R]] = deque()
    try:
        for chunk in itertools.chain(following, remaining):
            with _undisturbed():
                waiting.append(pool.submit(_apply, chunk))
            if len(waiting) >= processes * _CHUNKS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as exc:
        raise WorkerDiedError("a worker process was killed, most likely because memory ran out") from exc
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Block signals: a process that is starting while this one ends would print a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(work: Callable[[Any], Any]) -> None:
    global _work  # noqa: PLW0603 - a worker process has one job
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _apply(chunk: Any) -> Any:
    if _work is None:
        raise RuntimeError("the worker was not started")
    return _work(chunk)
