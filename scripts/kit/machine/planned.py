"""What the shipped configurations need on each platform, from the plan: ``make docs`` writes ``planned.json``.

Standard library only, for Python 3.9 and later.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from kit.files.json_files import read_object

FILE = Path(__file__).with_name("planned.json")


@dataclass(frozen=True)
class Planned:
    """What a platform's own configuration needs; on a CPU the demo's.

    Attributes:
        loading_bytes: The host's memory while the base loads.
        output_bytes: All kept checkpoints, the next one and the adapter.
        slow_tokens_per_second: Of Mistral-7B, padding included, at worst.
        fast_tokens_per_second: At best, without gradient checkpointing.
    """

    device_bytes: int
    loading_bytes: int
    weights_bytes: int
    output_bytes: int
    slow_tokens_per_second: int
    fast_tokens_per_second: int


@functools.cache
def planned(platform: str) -> Planned:
    """Return what a platform's own configuration needs."""
    return Planned(**read_object(FILE)[platform])
