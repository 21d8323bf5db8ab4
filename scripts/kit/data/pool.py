"""Work on many chunks at once, with results in order and a bounded number of them in memory.

Small inputs are worked on right here: starting processes takes longer than a few thousand rows do.
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
_CHUNKS_AHEAD = 2  # for each process: enough to keep it busy, few enough to keep memory flat
_MOST_PROCESSES = 16  # beyond, the one that reads and writes sets the pace

_work: Callable[[Any], Any] | None = None


class WorkerDiedError(RuntimeError):
    """A worker was ended from outside, which is what happens where memory runs out."""


def processes_for(asked: int | None = None) -> int:
    """Return how many processes to work with: what was asked for, or one for each core this process may use."""
    return asked or min(usable_cores(), _MOST_PROCESSES)


def in_order(work: Callable[[C], R], chunks: Iterable[C], processes: int) -> Iterator[R]:
    """Apply ``work`` to every chunk and yield the results in the chunks' order; one process is this one.

    Both must be picklable. Each process gets one copy of ``work``; chunks are read no further ahead than needed.

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
    # Forked from a server that has imported what the work needs, once for all; never from this process, whose threads
    # a fork would break.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([type(work).__module__, __name__])
    with _undisturbed():  # what multiprocessing starts beside the workers keeps that, and outlives a closed window
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
        raise WorkerDiedError("a worker process was killed, as happens where memory runs out") from exc
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let signals wait: a process that is being started when this one ends would end in a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(work: Callable[[Any], Any]) -> None:
    global _work  # noqa: PLW0603 - a worker process has one job
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one in order
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
