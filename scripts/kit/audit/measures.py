"""What some rows amount to in tokens at one sequence length."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kit.audit.histogram import Histogram, histogram
from kit.audit.packing import Packing, packing

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class TokenCounts:
    """Some rows, counted."""

    rows: int
    tokens: int  # cut at max_seq_length
    trainable_tokens: int
    longest: int  # before the cut
    truncated_rows: int
    truncated_tokens: int  # that are cut off
    max_seq_length: int
    histogram: Histogram  # by tokens before the cut
    packing: Packing

    def as_mapping(self) -> dict[str, Any]:
        """Return the numbers as JSON takes them, with the share the loss is taken on."""
        share = self.trainable_tokens / self.tokens if self.tokens else 0.0
        return {**asdict(self), "trainable_share": share}


def measure(lengths: Mapping[int, int], trainable_tokens: int, max_seq_length: int) -> TokenCounts:
    """Count rows, given as their number by tokens before the cut; ``trainable_tokens`` are of all, after it."""
    over = {length: rows for length, rows in lengths.items() if length > max_seq_length}
    return TokenCounts(
        sum(lengths.values()),
        sum(min(length, max_seq_length) * rows for length, rows in lengths.items()),
        trainable_tokens,
        max(lengths, default=0),
        sum(over.values()),
        sum((length - max_seq_length) * rows for length, rows in over.items()),
        max_seq_length,
        histogram(lengths),
        packing(lengths, max_seq_length),
    )
