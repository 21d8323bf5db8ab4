"""One conversation, encoded on the way that training takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.data.conversations import RowProblem
from kit.data.encoding import IGNORE_INDEX, EncodedRow, encode_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.conversations import Conversation


class RefusedError(Exception):
    """The row is a problem, in the words of its finding, with its fix."""


def labelled(ids: list[int], spans: Sequence[tuple[int, int]], line: int, full_length: int) -> EncodedRow:
    """Make a row of its ids, already cut, and of the tokens its answers are, cut or not."""
    labels = [IGNORE_INDEX] * len(ids)
    for begin, end in spans:
        answer = ids[begin:end]
        labels[begin : begin + len(answer)] = answer
    return EncodedRow(ids, labels, line, full_length)


def encoded_row(conversation: Conversation, tokenizer: ChatTokenizer, max_seq_length: int = 10_000) -> EncodedRow:
    """Encode one conversation and cut it at its end."""
    (row,) = encode_rows([conversation], tokenizer)
    if isinstance(row, RowProblem):
        raise RefusedError(f"{row.message}; fix: {row.fix}")
    return labelled(row.ids[:max_seq_length], row.answers, row.conversation.line, len(row.ids))
