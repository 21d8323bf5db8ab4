"""The canonical weights: the same bits everywhere, exact in every precision, and safe to quantise."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from kit.parity.weights import canonical_weights, weights_sha256

LINEAR = "model.layers.0.mlp.down_proj.weight"
SIZES = {LINEAR: (128, 384), "model.norm.weight": (128,), "model.embed_tokens.weight": (259, 128)}


def scattered(name: str, position: int) -> int:
    """SplitMix64 in Python's integers, to check numpy's wrapping arithmetic."""
    mask = 2**64 - 1
    state = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    state = (state + (position + 1) * 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_the_weights_are_those_of_the_formula() -> None:
    found = (canonical_weights(SIZES)[LINEAR].reshape(-1) * 1024).tolist()
    ranges = [64, 114, 92, 122, 77, 127, 69, 99]
    for position in (1, 63, 65, 130, 40_001):
        reach = ranges[position // 64 % 8]
        assert found[position] == scattered(LINEAR, position) % (2 * reach + 1) - reach


@pytest.mark.parametrize("name", list(SIZES))
def test_every_weight_is_exact_in_bfloat16(name: str) -> None:
    bits = canonical_weights(SIZES)[name].view(np.uint32)
    assert not (bits & 0xFFFF).any()


def test_each_block_reaches_the_end_of_its_range() -> None:
    blocks = np.abs(canonical_weights(SIZES)[LINEAR] * 1024).reshape(-1, 64).max(axis=1)
    assert blocks[:8].tolist() == [64, 114, 92, 122, 77, 127, 69, 99]
    assert blocks.mean() == 95.5


def test_weights_of_another_name_are_others() -> None:
    other = canonical_weights({LINEAR.replace("0", "1"): (128, 384)})
    assert not np.array_equal(next(iter(other.values())), canonical_weights(SIZES)[LINEAR])


def test_one_changed_weight_is_another_hash() -> None:
    changed = canonical_weights(SIZES)
    before = weights_sha256(changed)
    changed[LINEAR][0, 0] = np.nextafter(changed[LINEAR][0, 0], np.float32(1))
    assert weights_sha256(changed) != before
