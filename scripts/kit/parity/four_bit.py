"""NF4 with double quantisation, from the formulas. Imports no torch.

From the QLoRA paper (Dettmers et al., 2023, arXiv:2305.14314) and, for the scales' 8 bits, from 8-bit Approximations
for Parallelism in Deep Learning (Dettmers, 2015, arXiv:1511.04561). Uses nothing of bitsandbytes, which is compared
with this.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_BLOCK, _SCALES_BLOCK = 64, 256
# Appendix E of the paper.
_NF4 = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ]
)  # fmt: skip


def dynamic_codes() -> Any:
    """Return the 256 values of the dynamic 8-bit type: finer towards zero, by a factor of ten per level."""
    codes = [0.0, 1.0]
    for level in range(7):
        edges = np.linspace(0.1, 1, 2**level + 1)
        middles = 10.0 ** (level - 6) * (edges[:-1] + edges[1:]) / 2
        codes += [*middles, *-middles]
    return np.sort(codes)


def nf4_and_back(weights: Any) -> Any:
    """Quantise to NF4 with quantised scales, and return the dequantised weights in float64."""
    blocks = weights.astype(np.float64).reshape(-1, _BLOCK)
    scales = np.abs(blocks).max(axis=1)
    codes = _nearest(blocks / scales[:, None], _NF4)
    return (codes * _scales_and_back(scales)[:, None]).reshape(weights.shape)


def _scales_and_back(scales: Any) -> Any:
    """Quantise scales, minus their mean, to 8 bits in blocks of 256, and return them dequantised."""
    mean = scales.mean()
    kept = []
    for begin in range(0, len(scales), _SCALES_BLOCK):
        block = scales[begin : begin + _SCALES_BLOCK] - mean
        largest = np.abs(block).max()
        kept.append(_nearest(block / largest, dynamic_codes()) * largest + mean)
    return np.concatenate(kept)


def _nearest(values: Any, codes: Any) -> Any:
    middles = (codes[:-1] + codes[1:]) / 2
    return codes[np.searchsorted(middles, values)]
