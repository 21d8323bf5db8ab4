"""Conversations as token ids and labels; only the answers carry loss.

``encode_rows`` and ``encode_prompt`` are the only ways from turns to ids. Training, evaluation and chat go through
them, so a prompt at inference is, token for token, the beginning of the row it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.data.conversations import Conversation, RowProblem
from kit.data.remarks import Mark
from kit.data.rendering import Rendered, render_prompt, render_row
from kit.data.template import CHANGE_THE_TURNS, TemplateError, within_memory
from kit.data.tokenising import Tokens, tokenise
from kit.data.turns import MOST_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.turns import Message

IGNORE_INDEX = -100  # torch's cross entropy skips this label
_CHARACTERS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class EncodedRow:
    """One training row."""

    input_ids: list[int]  # at most max_seq_length of them
    labels: list[int]  # the id where it carries loss, IGNORE_INDEX elsewhere
    line: int
    full_length: int  # tokens before truncation

    @property
    def trainable_tokens(self) -> int:
        """Tokens with loss; the first position is never predicted."""
        predicted = self.labels[1:]
        return len(predicted) - predicted.count(IGNORE_INDEX)


@dataclass(frozen=True)
class Encoded:
    """A conversation's ids before truncation."""

    conversation: Conversation
    ids: list[int]
    answers: list[tuple[int, int]]  # (first, past the last) token of each answer with loss
    marks: Mark


def encode_rows(items: Sequence[Conversation | RowProblem], tokenizer: ChatTokenizer) -> list[Encoded | RowProblem]:
    """Render and tokenise conversations; a row that the template or tokenizer rejects becomes a problem.

    Where one token would span the end of a prompt and the start of its answer, the two are tokenised separately.
    """
    with within_memory():
        rendered = [_rendered(item, tokenizer) for item in items]
    texts = [one[1] for one in rendered if not isinstance(one, RowProblem)]
    tokens = (each for some in _pieces(texts) for each in tokenise(some, tokenizer))
    return [one if isinstance(one, RowProblem) else _encoded(*one, next(tokens), tokenizer) for one in rendered]


def _pieces(texts: list[Rendered]) -> Iterator[list[Rendered]]:
    """Group texts to tokenise together, which takes 200 bytes of memory per character."""
    piece, size = [], 0
    for text in texts:
        piece.append(text)
        size += len(text.text)
        if size > _CHARACTERS_AT_ONCE:
            yield piece
            piece, size = [], 0
    yield piece


def _rendered(item: Conversation | RowProblem, tokenizer: ChatTokenizer) -> tuple[Conversation, Rendered] | RowProblem:
    if isinstance(item, RowProblem):
        return item
    try:
        rendered = render_row(item.messages, tokenizer)
    except TemplateError as exc:
        return RowProblem(item.line, str(exc), exc.fix)
    if (found := len(rendered.text)) > (most := 2 * MOST_CHARACTERS):  # the turns have fewer
        what = f"is rendered by the chat template as {found:,} characters, too many to train on (at most {most:,})"
        return RowProblem(item.line, what, CHANGE_THE_TURNS)
    return item, rendered


def _encoded(
    conversation: Conversation, rendered: Rendered, tokens: Tokens | TemplateError, tokenizer: ChatTokenizer
) -> Encoded | RowProblem:
    if isinstance(tokens, TemplateError):
        return RowProblem(conversation.line, str(tokens), tokens.fix)
    ids, answers, is_cut = tokens
    marks = rendered.marks | (Mark.CUT if is_cut else Mark(0))
    if any(end in ids[begin:behind] for begin, behind in answers for end in tokenizer.end_token_ids):
        marks |= Mark.ENDS
    return Encoded(conversation, ids, answers, marks)


def encode_prompt(messages: Sequence[Message], tokenizer: ChatTokenizer) -> list[int]:
    """Encode a prompt, up to where the answer begins.

    Raises:
        TemplateError: The template or the tokenizer rejects the conversation.
    """
    with within_memory():
        prompt = render_prompt(messages, tokenizer)
    (found,) = tokenise([prompt], tokenizer)
    if isinstance(found, TemplateError):
        raise found
    return found.ids


def trained_tokens(spans: Sequence[tuple[int, int]], length: int) -> int:
    """Count the tokens with loss in a row cut at ``length``: see ``EncodedRow.trainable_tokens``."""
    trained, at = 0, 1
    for begin, end in spans:  # in order; two answers may share a token
        behind = min(end, length)
        trained += max(0, behind - max(begin, at))
        at = max(at, behind)
    return trained
