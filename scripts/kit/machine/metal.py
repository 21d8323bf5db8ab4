"""How much of a Mac's memory a run may take: Metal's working set times PyTorch's high watermark.

Standard library only, for Python 3.9 and later. Not measured on a Mac; the shares are those that Macs report as
``recommendedMaxWorkingSetSize``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping

HIGH, LOW = "PYTORCH_MPS_HIGH_WATERMARK_RATIO", "PYTORCH_MPS_LOW_WATERMARK_RATIO"
# Defaults of a run and of the Makefile. PyTorch's own, 1.7 and 1.4, exceed the memory, so that the Mac swaps for hours
# instead of failing.
_HIGH, _LOW = 1.0, 0.9
# From 36 GB on Metal gives the GPU three quarters of the memory, below that two thirds.
_LARGE_BYTES = 36 * 1024**3


def working_set_bytes(unified_bytes: int) -> int:
    """Return how much of the unified memory Metal gives the GPU."""
    return unified_bytes * 3 // 4 if unified_bytes >= _LARGE_BYTES else unified_bytes * 2 // 3


def allowed_bytes(working_set: int, watermark: str | None, unified_bytes: int) -> int:
    """Return the most PyTorch allocates: its high watermark (None: a run's default), but never more than the memory."""
    ratio = _number(watermark, _HIGH)
    # 0 means no limit to PyTorch.
    return min(unified_bytes, round(working_set * ratio)) if ratio > 0 else unified_bytes


def stay_within_working_set(environment: MutableMapping[str, str]) -> None:
    """Set both watermarks unless they are set; lower a low one above the high one, which PyTorch rejects."""
    high = _number(environment.setdefault(HIGH, str(_HIGH)), _HIGH)
    if 0 < high < _number(environment.setdefault(LOW, str(_LOW)), _LOW):
        environment[LOW] = str(high)


def _number(text: str | None, otherwise: float) -> float:
    try:
        return float(text or otherwise)
    except ValueError:  # PyTorch reports it
        return otherwise
