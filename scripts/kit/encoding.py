"""Conversations as token ids and labels: the loss is taken on the answers and on nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.chat_tokenizer import ChatTokenizer
    from kit.conversations import Conversation

IGNORE_INDEX = -100  # torch's cross entropy skips this label


@dataclass(frozen=True)
class EncodedRow:
    """One training row.

    Attributes:
        input_ids: Token ids, at most ``max_seq_length`` of them.
        labels: The same length: the id where the loss is taken, ``IGNORE_INDEX`` elsewhere.
        line: The row's line in its file.
        full_length: Tokens before truncation.
    """

    input_ids: list[int]
    labels: list[int]
    line: int
    full_length: int

    @property
    def trainable_tokens(self) -> int:
        """Labels that are predicted: the first position has no token before it to predict it from."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])


class MaskingError(ValueError):
    """The template rewrites earlier turns, so the answers cannot be found in the rendered text."""


def answer_spans(conversation: Conversation, tokenizer: ChatTokenizer) -> tuple[str, list[tuple[int, int]]]:
    """Render a conversation and say where its answers are.

    An answer is everything the template adds after the generation prompt: the text and the token that ends it.

    Returns:
        The rendered text, and (start, end) in characters of each answer.

    Raises:
        MaskingError: The rendering of the first turns is not the beginning of the rendering of more.
        TemplateError: The template refuses the conversation.
    """
    messages = conversation.messages
    text = tokenizer.render(messages)
    spans = []
    for position, message in enumerate(messages):
        if not message.is_answer:
            continue
        before = tokenizer.render(messages[:position], add_generation_prompt=True)
        after = tokenizer.render(messages[: position + 1])
        if not (after.startswith(before) and text.startswith(after)):
            raise MaskingError("is rendered differently by the template once more turns follow, so it cannot be masked")
        spans.append((len(before), len(after)))
    return text, spans


def encode(conversation: Conversation, tokenizer: ChatTokenizer, max_seq_length: int) -> EncodedRow:
    """Tokenise one conversation and mask everything but its answers; what is over the length is cut at the end.

    A token that begins before an answer and ends in it counts as the answer's: it carries the answer's first letters.

    Raises:
        MaskingError: See ``answer_spans``.
        TemplateError: See ``answer_spans``.
    """
    text, spans = answer_spans(conversation, tokenizer)
    ids, offsets = tokenizer.encode(text)
    labels = [
        token if any(start < span_end and end > span_start for span_start, span_end in spans) else IGNORE_INDEX
        for token, (start, end) in zip(ids, offsets, strict=True)
    ]
    return EncodedRow(ids[:max_seq_length], labels[:max_seq_length], conversation.line, len(ids))
