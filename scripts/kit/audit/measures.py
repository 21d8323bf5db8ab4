"""Token counts of some rows at one sequence length."""

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
    tokens: int  # after truncation
    trainable_tokens: int  # with loss, after truncation
    longest: int  # tokens before truncation
    truncated_rows: int
    truncated_tokens: int  # cut off
    max_seq_length: int
    histogram: Histogram  # of tokens before truncation
    packing: Packing

    def as_mapping(self) -> dict[str, Any]:
        """Return the numbers as JSON takes them, with the share of tokens with loss."""
        share = self.trainable_tokens / self.tokens if self.tokens else 0.0
        return {**asdict(self), "trainable_share": share}


def measure(lengths: Mapping[int, int], trainable_tokens: int, max_seq_length: int) -> TokenCounts:
    """Count rows: ``lengths`` are rows by tokens before truncation, ``trainable_tokens`` is the total after it."""
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
