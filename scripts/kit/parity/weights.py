"""The canonical weights, made by a formula of whole numbers: identical on every machine and version.

torch's and numpy's random generators may differ by device and release. Each weight is a whole number up to 127 times a
power of two, so it is exact in bfloat16 too: the cases differ in their arithmetic, not in their weights. Every 64
weights, which share a scale in NF4, have one of eight ranges and reach its end; the ranges are chosen so that no weight
and no scale lies where the last bit decides which 4-bit or 8-bit code is nearest, which implementations of bitsandbytes
decide differently.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Weights = dict[str, "np.ndarray[Any, np.dtype[np.float32]]"]

# The power of two that scales the whole numbers, by the end of a weight's name.
_EXPONENTS = {"embed_tokens.weight": -7, "lora_B.weight": -11}
_LINEAR_EXPONENT = -10
_BLOCK = 64  # NF4's block: weights that share a scale
_RANGES = np.array([64, 114, 92, 122, 77, 127, 69, 99])  # of consecutive blocks; pairs around their mean, 95.5
_NORM_RANGE = 31
_GOLDEN = 0x9E3779B97F4A7C15


def canonical_weights(sizes: Mapping[str, Sequence[int]]) -> Weights:
    """Make every weight from its tensor's name and its position in it; ``sizes`` are the tensors' shapes by name."""
    return {name: _tensor(name, tuple(size)) for name, size in sizes.items()}


def _tensor(name: str, size: tuple[int, ...]) -> Any:
    count = math.prod(size)
    drawn = _scattered(name, count)
    if len(size) == 1:
        return (1 + _whole(drawn, np.full(count, _NORM_RANGE)) * 2.0**-7).astype(np.float32)
    ranges = np.resize(np.repeat(_RANGES, _BLOCK), count)
    numbers = _whole(drawn, ranges)
    first = np.arange(0, count, _BLOCK)
    numbers[first] = np.where(numbers[first] < 0, -ranges[first], ranges[first])
    exponent = next((value for end, value in _EXPONENTS.items() if name.endswith(end)), _LINEAR_EXPONENT)
    return (numbers * 2.0**exponent).astype(np.float32).reshape(size)


def _whole(drawn: Any, ranges: Any) -> Any:
    """Map 64 bits each to a whole number from -range to range."""
    return (drawn % (2 * ranges + 1).astype(np.uint64)).astype(np.int64) - ranges


def _scattered(name: str, count: int) -> Any:
    """Return 64 pseudo-random bits for each position, seeded by a name: SplitMix64 (Steele et al., OOPSLA 2014)."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    state = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def weights_sha256(weights: Weights) -> str:
    """Hash weights by name, size and value."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor, dtype="<f4").tobytes())
    return digest.hexdigest()
