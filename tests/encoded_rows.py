"""One conversation, encoded on the way that training takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.data.conversations import RowProblem
from kit.data.encoding import EncodedRow, encode_rows, labelled

if TYPE_CHECKING:
    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.conversations import Conversation


class RefusedError(Exception):
    """The row is a problem, in the words of its finding, with its fix."""


def encoded_row(conversation: Conversation, tokenizer: ChatTokenizer, max_seq_length: int = 10_000) -> EncodedRow:
    """Encode one conversation and cut it at its end."""
    (row,) = encode_rows([conversation], tokenizer)
    if isinstance(row, RowProblem):
        raise RefusedError(f"{row.message}; fix: {row.fix}")
    return labelled(row.ids[:max_seq_length], row.answers, row.conversation.line, len(row.ids))
