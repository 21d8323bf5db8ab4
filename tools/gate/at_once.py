"""How many tests run at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kit.machine.probe import usable_cores, usable_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_WORKERS, _MEMORY_BYTES = 8, 4 * 10**9
# A debugger and a terminal need pytest's own process; -n says itself how many.
_ALONE = re.compile(r"--pdb|--trace|-s\Z|--capture=no|-n|--numprocesses|-p\Z")


def workers() -> int:
    """Return how many tests run at once: one a core, up to eight, and one for every 4 GB of free memory."""
    _, available = usable_memory()
    room = _MOST_WORKERS if available is None else available // _MEMORY_BYTES
    return max(1, min(usable_cores(), _MOST_WORKERS, room))


def at_once(more: Sequence[str] = ()) -> list[str]:
    """Spread the tests over the cores, each file in one worker; not for somebody who looks into them."""
    if workers() == 1 or any(_ALONE.match(word) for word in more):
        return []
    # In the order they are collected, which begins with the slow ones: see tests/conftest.py.
    return ["-n", str(workers()), "--dist", "loadfile", "--no-loadscope-reorder"]
