"""What the shipped configurations take on each platform, as the plan says it: read, since it cannot be asked here.

``planned.json`` is written by ``make docs``, and the gate compares the two. Standard library
only, for Python 3.9 and later.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from kit.files.json_files import read_object

FILE = Path(__file__).with_name("planned.json")


@dataclass(frozen=True)
class Planned:
    """What a platform's own configuration takes; on a CPU the demo's, since Mistral-7B is not for one.

    Attributes:
        device_bytes: The peak of the device's memory.
        loading_bytes: What passes through the host's memory while the base loads.
        weights_bytes: The base's files.
        output_bytes: All checkpoints that are kept, the next one and the adapter.
        slow_tokens_per_second: Training tokens of Mistral-7B, padding counted, with the configuration as it stands, at
            worst.
        fast_tokens_per_second: The same at best, and without recomputing a layer.
    """

    device_bytes: int
    loading_bytes: int
    weights_bytes: int
    output_bytes: int
    slow_tokens_per_second: int
    fast_tokens_per_second: int


@functools.cache
def planned(platform: str) -> Planned:
    """Return what a platform's own configuration takes."""
    return Planned(**read_object(FILE)[platform])
