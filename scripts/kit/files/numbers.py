"""Numbers out of files that may hold anything: a receipt edited by hand, metrics of a run that went to NaN."""

from __future__ import annotations

import math
from typing import Any


def number(value: Any) -> float | None:
    """Return a number as a float, NaN and infinity included; None for whatever is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def finite(value: Any) -> float | None:
    """Return a finite number as a float; None for NaN, infinity and whatever is no number."""
    found = number(value)
    return found if found is not None and math.isfinite(found) else None


def logged(line: dict[str, Any], key: str) -> float | None:
    """Return what a line of metrics says: NaN for null, which is how JSON holds it; None where the key is missing."""
    if key not in line:
        return None
    return math.nan if line[key] is None else number(line[key])


def mapping(value: Any) -> dict[str, Any]:
    """Return a dictionary with text keys as it is, and an empty one for whatever is none."""
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    """Return a list as it is, and an empty one for whatever is none."""
    return value if isinstance(value, list) else []
