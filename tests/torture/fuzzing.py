"""Feed mutants to a part of the kit, by number: the same seed and number make the same mutant again, in any order.

A mutant is refused with a finding or taken for exactly what it says. Anything else is a fault, and the mutant is kept.
"""

from __future__ import annotations

import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kit.data.pool import in_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

HUNG_AFTER_S = 60  # a guard: no mutant takes a hundredth of it
_AT_ONCE = 100


class FaultError(AssertionError):
    """What must not happen did; the message says what, as one sentence."""


@dataclass(frozen=True)
class Mutant:
    """One thing to try.

    Attributes:
        kind: How it was made.
        content: It itself, as it is kept where it finds a fault.
        details: What else the fuzzer needs to judge it.
    """

    kind: str
    content: bytes
    details: Any = None


class Fuzzer(Protocol):
    """Makes mutants of one kind of thing, and judges what the kit makes of them. Travels to another process."""

    @property
    def name(self) -> str:
        """What it is called, and what ``--only`` names."""

    @property
    def suffix(self) -> str:
        """Of the file a mutant is kept in."""

    def mutant(self, source: random.Random) -> Mutant:
        """Make one, out of that source of chance alone."""

    def judge(self, mutant: Mutant) -> dict[str, int]:
        """Let the kit try it; return what became of it, counted.

        Raises:
            FaultError: What became of it must not happen.
        """


@dataclass(frozen=True)
class Found:
    """A mutant that found a fault."""

    number: int
    kind: str
    message: str
    content: bytes = field(repr=False)


@dataclass
class Tally:
    """What became of many mutants.

    Attributes:
        name: Of the fuzzer.
        mutants: How many there were.
        outcomes: What became of them; of rows, several to a mutant.
        kinds: How they were made.
        found: Those that found a fault.
        slowest_s: The longest that one took.
        slowest: Its number.
    """

    name: str
    mutants: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    found: list[Found] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: int = -1

    def add(self, other: Tally) -> None:
        """Add what became of others."""
        self.mutants += other.mutants
        self.outcomes += other.outcomes
        self.kinds += other.kinds
        self.found += other.found
        if other.slowest_s > self.slowest_s:
            self.slowest_s, self.slowest = other.slowest_s, other.slowest

    def keep_faults(self, folder: Path, suffix: str) -> list[str]:
        """Write each mutant that found a fault into a folder, and return a sentence for each."""
        said = []
        for found in self.found:
            path = folder / f"{self.name}-{found.number}{suffix}"
            path.write_bytes(found.content)
            said.append(f"{self.name} mutant {found.number} ({found.kind}): {found.message}; kept as {path}")
        return said

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        found = [{"number": one.number, "kind": one.kind, "message": one.message} for one in self.found]
        return {**vars(self), "outcomes": dict(self.outcomes), "kinds": dict(self.kinds), "found": found}


@dataclass(frozen=True)
class Trial:
    """Tries mutants by number, in this process or in another."""

    fuzzer: Fuzzer
    seed: int

    def mutant(self, number: int) -> Mutant:
        """Make the mutant of that number."""
        return self.fuzzer.mutant(random.Random(f"{self.fuzzer.name}/{self.seed}/{number}"))  # noqa: S311 - no secret

    def __call__(self, numbers: Sequence[int]) -> Tally:
        """Try these."""
        tally = Tally(self.fuzzer.name)
        previous = signal.signal(signal.SIGALRM, _hung)
        try:
            for number in numbers:
                self._try(number, tally)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, previous)
        return tally

    def _try(self, number: int, tally: Tally) -> None:
        mutant = self.mutant(number)
        tally.mutants += 1
        tally.kinds[mutant.kind] += 1
        signal.alarm(HUNG_AFTER_S)
        started = time.monotonic()
        try:
            tally.outcomes.update(self.fuzzer.judge(mutant))
        except FaultError as exc:
            tally.found.append(Found(number, mutant.kind, str(exc), mutant.content))
        except Exception as exc:  # noqa: BLE001 - a traceback is what is looked for
            tally.found.append(Found(number, mutant.kind, _in_one_line(exc), mutant.content))
        seconds = time.monotonic() - started
        signal.alarm(0)
        if seconds > tally.slowest_s:
            tally.slowest_s, tally.slowest = seconds, number


def fuzz(fuzzer: Fuzzer, seed: int, numbers: range, processes: int) -> Iterator[Tally]:
    """Try the mutants of these numbers; yield what has become of all of them so far."""
    tally = Tally(fuzzer.name)
    chunks = (numbers[at : at + _AT_ONCE] for at in range(0, len(numbers), _AT_ONCE))
    for part in in_order(Trial(fuzzer, seed), chunks, processes):
        tally.add(part)
        yield tally


def scratch(prefix: str) -> Path:
    """Make a folder of this process's own, gone with it; in memory where there is such a place, for it is quicker."""
    memory = Path("/dev/shm")  # noqa: S108 - where Linux keeps files in memory; the folder's name is not guessable
    folder = tempfile.TemporaryDirectory(prefix=prefix, dir=memory if memory.is_dir() else None)
    _FOLDERS.append(folder)
    return Path(folder.name)


_FOLDERS: list[Any] = []


def _hung(_number: int, _frame: FrameType | None) -> None:
    raise FaultError(f"took longer than {HUNG_AFTER_S} s")


def _in_one_line(exc: BaseException) -> str:
    last = traceback.extract_tb(exc.__traceback__)[-1]
    return f"ended in {type(exc).__name__} at {last.filename.rpartition('/')[2]}:{last.lineno}: {exc!s:.200}"
