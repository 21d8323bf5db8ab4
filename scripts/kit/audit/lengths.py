"""How long conversations are in tokens, and how much of each the loss is taken on, without keeping the tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.audit.length_cache import Length, LengthCache
from kit.data.conversations import RowProblem
from kit.data.dataset import ends, has_control_tokens, render
from kit.data.encoding import token_spans, trained_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.conversations import Conversation

HAS_END, HAS_CONTROLS, HAS_MERGED_SYSTEM = 1, 2, 4


class Ruler:
    """Measures conversations; in a few microseconds where they were measured before."""

    def __init__(self, tokenizer: ChatTokenizer, max_seq_length: int, cache: Path | None) -> None:
        """Measure with a tokenizer, for rows cut at a length."""
        self.tokenizer = tokenizer
        self.max_seq_length = max_seq_length
        self._cache = LengthCache(cache, tokenizer.fingerprint, max_seq_length)

    def measure(self, conversations: Sequence[Conversation], texts: Sequence[bytes]) -> list[Length | RowProblem]:
        """Measure some conversations.

        Args:
            conversations: What to measure.
            texts: Each one's turns as bytes, letter for letter: what they are remembered by.

        Returns:
            For each its length, or why the template refuses it.
        """
        if not conversations:
            return []
        key = self._cache.key(texts)
        known = self._cache.get(key)
        if known is not None and len(known) == len(conversations):
            return list(known)
        measured = self._count(conversations)
        lengths = [length for length in measured if isinstance(length, Length)]
        if len(lengths) == len(measured):  # a refusal is not kept: its words belong to the row
            self._cache.put(key, lengths)
        return measured

    def _count(self, conversations: Sequence[Conversation]) -> list[Length | RowProblem]:
        tokenizer = self.tokenizer
        rendered = [render(conversation, tokenizer) for conversation in conversations]
        encodings = iter(tokenizer.encode_batch([row[1] for row in rendered if not isinstance(row, RowProblem)]))
        measured: list[Length | RowProblem] = []
        for row in rendered:
            if isinstance(row, RowProblem):
                measured.append(row)
                continue
            conversation, _, spans = row
            encoding = next(encodings)
            ids, answers = encoding.ids, token_spans(encoding, spans)
            marks = HAS_END * ends(ids, answers, tokenizer.eos_token_id)
            marks |= HAS_CONTROLS * has_control_tokens(conversation, tokenizer)
            marks |= HAS_MERGED_SYSTEM * (tokenizer.merges_system and conversation.messages[0].role == "system")
            measured.append(Length(len(ids), trained_tokens(answers, self.max_seq_length), marks))
        return measured
