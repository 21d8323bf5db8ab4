"""Near duplicates: rows that share most of their word n-grams, found with datasketch's MinHash and LSH.

The index is in memory, about 2.8 kB per kept row (measured: docs/DATA.md).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

PERMUTATIONS = 128
DEFAULT_THRESHOLD = 0.8
_SEED = 1
_SHINGLE_WORDS = 5


def signature_of(text: str) -> bytes:
    """Return the MinHash of a text's word n-grams as bytes: the same on every machine."""
    words = text.split()
    runs = {" ".join(words[at : at + _SHINGLE_WORDS]) for at in range(max(1, len(words) - _SHINGLE_WORDS + 1))}
    signature = _prototype().copy()
    signature.update_batch([run.encode("utf-8", "surrogatepass") for run in sorted(runs)])
    return np.asarray(signature.hashvalues).astype("<u8").tobytes()


class NearIndex:
    """The rows kept so far, searchable by similarity."""

    def __init__(self, threshold: float = DEFAULT_THRESHOLD) -> None:
        """Treat rows as duplicates from an estimated Jaccard similarity of ``threshold``."""
        from datasketch import MinHashLSH

        self._threshold = threshold
        self._index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
        self._kept: dict[int, Any] = {}

    def first_like(self, number: int, signature: bytes) -> int | None:
        """Return the first kept row that is like this one; if there is none, keep this one."""
        own = _prototype().copy()
        own.hashvalues = np.frombuffer(signature, "<u8").astype(own.hashvalues.dtype)
        for candidate in sorted(self._index.query(own)):
            if own.jaccard(self._kept[candidate]) >= self._threshold:
                return int(candidate)
        self._index.insert(number, own)
        self._kept[number] = own
        return None


@functools.cache  # its permutations take a while to draw
def _prototype() -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, seed=_SEED)
