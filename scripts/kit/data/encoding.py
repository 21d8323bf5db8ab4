"""Conversations as token ids and labels: the loss is taken on the answers and on nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Encoding

    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.conversations import Conversation

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
        predicted = self.labels[1:]
        return len(predicted) - predicted.count(IGNORE_INDEX)


class MaskingError(ValueError):
    """The answers cannot be found in the rendered text; the message says why, as a row's predicate."""


def answer_spans(conversation: Conversation, tokenizer: ChatTokenizer) -> tuple[str, list[tuple[int, int]]]:
    """Render a conversation and say where its answers are.

    An answer is what the template adds after the generation prompt, up to the token that ends it: the text and that
    token, without the line break some templates write behind it.

    Returns:
        The rendered text, and (start, end) in characters of each answer.

    Raises:
        MaskingError: The rendering of the first turns is not the beginning of the rendering of more, or an answer is
            not rendered at all.
        TemplateError: The template refuses the conversation.
    """
    messages = conversation.messages
    text = tokenizer.render(messages)
    spans = []
    for position, message in enumerate(messages):
        if not message.is_answer:
            continue
        before = tokenizer.render(messages[:position], add_generation_prompt=True)
        after = text if position + 1 == len(messages) else tokenizer.render(messages[: position + 1])
        if not (after.startswith(before) and text.startswith(after)):
            raise MaskingError("is rendered differently by the template once more turns follow, so it cannot be masked")
        if not after[len(before) :].strip():
            raise MaskingError("has an answer that the template leaves out")
        ended = after.rstrip()
        spans.append((len(before), len(ended if ended.endswith(tokenizer.special_tokens["eos_token"]) else after)))
    return text, spans


def encode(conversation: Conversation, tokenizer: ChatTokenizer, max_seq_length: int) -> EncodedRow:
    """Tokenise one conversation and mask everything but its answers; what is over the length is cut at the end.

    Raises:
        MaskingError: See ``answer_spans``.
        TemplateError: See ``answer_spans``.
    """
    text, spans = answer_spans(conversation, tokenizer)
    return label(tokenizer.encode_batch([text])[0], spans, conversation.line, max_seq_length)


def label(encoding: Encoding, spans: Sequence[tuple[int, int]], line: int, max_seq_length: int) -> EncodedRow:
    """Label the tokens that touch an answer, cut at the end.

    A token that begins before an answer and ends in it counts as the answer's: it carries the answer's first letters.
    """
    ids = encoding.ids
    return labelled(ids[:max_seq_length], token_spans(encoding, spans), line, len(ids))


def labelled(ids: list[int], spans: Sequence[tuple[int, int]], line: int, full_length: int) -> EncodedRow:
    """Make a row of its ids, already cut, and of the tokens its answers are, cut or not."""
    labels = [IGNORE_INDEX] * len(ids)
    for begin, end in spans:
        answer = ids[begin:end]
        labels[begin : begin + len(answer)] = answer
    return EncodedRow(ids, labels, line, full_length)


def token_spans(encoding: Encoding, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return (first, behind the last) token of each answer, from its (start, end) in characters."""
    tokens = (_tokens_of(encoding, begin, end) for begin, end in spans)
    return [(found.start, found.stop) for found in tokens if found.stop > found.start]


def trained_tokens(spans: Sequence[tuple[int, int]], length: int) -> int:
    """Count the tokens the loss is taken on in a row cut at ``length``: see ``EncodedRow.trainable_tokens``."""
    trained: set[int] = set()
    if len(spans) == 1:
        begin, end = spans[0]
        return max(0, min(end, length) - max(begin, 1))
    for begin, end in spans:  # two answers may touch the same token
        trained.update(range(max(begin, 1), min(end, length)))
    return len(trained)


def _tokens_of(encoding: Encoding, begin: int, end: int) -> slice:
    """Return the tokens that touch the characters from ``begin`` up to ``end``.

    The library is asked about single characters: making all offsets would cost more than tokenising.
    """
    positions = range(begin, end)
    first = next((token for at in positions if (token := encoding.char_to_token(at)) is not None), None)
    last = next((token for at in reversed(positions) if (token := encoding.char_to_token(at)) is not None), None)
    if first is None or last is None:  # the tokenizer drops all of it
        return slice(0, 0)
    # A character may be several tokens, of a byte each, and the library names the first.
    while (characters := encoding.token_to_chars(last + 1)) and characters[0] < end:
        last += 1
    return slice(first, last + 1)
