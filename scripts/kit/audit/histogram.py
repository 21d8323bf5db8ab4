"""Histogram of row lengths in tokens, as numbers and as bars for a terminal."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MOST_BINS = 16
_TAIL = 0.005  # share of rows beyond the last regular bin, so that one long row does not flatten the rest
_BAR = 40


@dataclass(frozen=True)
class Histogram:
    """Bins of equal width, except the last, which holds all longer rows."""

    edges: tuple[int, ...]  # one more than bins; a bin holds lengths from its edge up to, but not including, the next
    counts: tuple[int, ...]


def histogram(lengths: Mapping[int, int], most_bins: int = _MOST_BINS) -> Histogram:
    """Put ``lengths`` (rows by length) into at most ``most_bins`` bins of a round width."""
    if not lengths:
        return Histogram((0,), ())
    longest = max(lengths)
    upto = quantile(lengths, 1 - _TAIL)
    width = _round_width(upto, most_bins - (longest > upto))
    edges = list(range(min(lengths) // width * width, upto + width, width))
    if edges[-1] <= longest:
        edges.append(longest + 1)
    counts = [0] * (len(edges) - 1)
    for length, rows in lengths.items():
        counts[bisect.bisect_right(edges, length) - 1] += rows
    return Histogram(tuple(edges), tuple(counts))


def quantile(lengths: Mapping[int, int], share: float) -> int:
    """Return the length that ``share`` of the rows do not exceed: 0.5 for the median, 0.95 for p95."""
    total, seen = sum(lengths.values()), 0
    for length in sorted(lengths):
        seen += lengths[length]
        if seen >= share * total:
            return length
    return max(lengths)


def _round_width(upto: int, bins: int) -> int:
    widths: Iterator[int] = (step * 10**power for power in itertools.count() for step in (1, 2, 5))
    return next(width for width in widths if width * max(1, bins - 1) > upto)


def bars(chart: Histogram, max_seq_length: int = 0) -> list[str]:
    """Draw the bins as lines of text, marking those beyond the sequence length."""
    largest = max(chart.counts, default=0)
    digits = max((len(f"{edge:,}") for edge in chart.edges), default=1)
    total = sum(chart.counts)
    lines = []
    for start, end, count in zip(chart.edges, chart.edges[1:], chart.counts, strict=False):
        length = round(_BAR * count / largest) if largest else 0
        bar = "█" * (length or (count > 0))
        beyond = ""
        if 0 < max_seq_length < end - 1:
            beyond = "  cut" if start > max_seq_length else "  partly cut"
        lines.append(
            f"{start:>{digits},} to {end - 1:>{digits},}  {bar:<{_BAR}}  {count:>9,}  {count / total:>4.0%}{beyond}"
        )
    return lines
