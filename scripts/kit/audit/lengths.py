"""How long conversations are in tokens, and how much of each the loss is taken on, without keeping the tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.audit.length_cache import Length, LengthCache
from kit.data.conversations import RowProblem
from kit.data.encoding import encode_rows, trained_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.conversations import Conversation


class TokenCounter:
    """Measures conversations; in a few microseconds where they were measured before."""

    def __init__(self, tokenizer: ChatTokenizer, max_seq_length: int, cache: Path | None) -> None:
        """Measure with a tokenizer, for rows cut at a length."""
        self.tokenizer = tokenizer
        self.max_seq_length = max_seq_length
        self._cache = LengthCache(cache, tokenizer.fingerprint, max_seq_length)

    def measure(self, conversations: Sequence[Conversation], texts: Sequence[bytes]) -> list[Length | RowProblem]:
        """Return each one's length, or why the template refuses it; ``texts`` (turns as bytes) make the cache's key."""
        if not conversations:
            return []
        key = self._cache.key(texts)
        known = self._cache.get(key)
        if known is not None and len(known) == len(conversations):
            return list(known)
        measured = [
            row
            if isinstance(row, RowProblem)
            else Length(len(row.ids), trained_tokens(row.answers, self.max_seq_length), int(row.marks))
            for row in encode_rows(conversations, self.tokenizer)
        ]
        lengths = [length for length in measured if isinstance(length, Length)]
        if len(lengths) == len(measured):  # a refusal is not kept: its words belong to the row
            self._cache.put(key, lengths)
        return measured
