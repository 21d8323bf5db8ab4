"""Rendered text as token ids, such that a prompt alone has the same ids as at the beginning of its row.

A tokenizer may merge a prompt's last character and its answer's first into one token (``]`` and ``{`` into ``]{``),
which never occurs at inference. Each answer's prompt is therefore also tokenised alone, from its last special token on,
which no other token spans; only where the ids differ is the text cut at the answer.
"""

from __future__ import annotations

import bisect
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from kit.data.marks import CUT, HIDE, harmless, is_marked
from kit.data.template import TemplateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Encoding

    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.rendering import Rendered


class Tokens(NamedTuple):
    """A text's ids."""

    ids: list[int]
    answers: list[tuple[int, int]]  # (first, past the last) token of each
    is_cut: bool  # a prompt and its answer were tokenised separately


class _Prompt(NamedTuple):
    """A prompt, or its end: of which text, up to which character, and its ids (up to ``behind``) in the row."""

    number: int
    begin: int
    text: str
    ids: list[int]
    behind: int


def tokenise(texts: Sequence[Rendered], tokenizer: ChatTokenizer) -> list[Tokens | TemplateError]:
    """Tokenise rendered conversations; for one that cannot be tokenised correctly, return why."""
    encodings = _encode(tokenizer, [one.text for one in texts])
    torn = _torn(tokenizer, texts, encodings, by_look=tokenizer.merges_alone_decide)
    made = [_tokens(tokenizer, text, encoding) for text, encoding in zip(texts, encodings, strict=True)]
    again = [position for position, begins in enumerate(torn) if begins and isinstance(made[position], Tokens)]
    if not again:
        return made
    cut = [_cut(texts[position], torn[position]) for position in again]
    encodings = _encode(tokenizer, [one.text for one in cut])
    still_torn = _torn(tokenizer, cut, encodings, by_look=False)
    for position, text, encoding, begins in zip(again, cut, encodings, still_torn, strict=True):
        whole, apart = made[position], _tokens(tokenizer, text, encoding)
        if isinstance(apart, Tokens) and isinstance(whole, Tokens):
            same = tokenizer.decode(apart.ids, special=True) == tokenizer.decode(whole.ids, special=True)
            made[position] = apart._replace(is_cut=True) if same and not begins else _torn_for_good()
        else:
            made[position] = apart
    return made


def _torn_for_good() -> TemplateError:
    return TemplateError(
        "has an answer whose first character changes the prompt's last tokens, and this model's tokenizer cannot "
        "separate the two",
        "begin the answer with another character, or remove the row",
    )


def _encode(tokenizer: ChatTokenizer, texts: list[str]) -> list[Encoding | TemplateError]:
    try:
        return list(tokenizer.encode_batch(texts))
    except TemplateError as exc:
        if len(texts) == 1:
            return [exc]
        return [one for text in texts for one in _encode(tokenizer, [text])]


def _torn(
    tokenizer: ChatTokenizer,
    texts: Sequence[Rendered],
    encodings: Sequence[Encoding | TemplateError],
    *,
    by_look: bool,
) -> list[list[int]]:
    """Return for each text the beginnings of answers whose prompts have other ids when tokenised alone.

    ``by_look``: only a token that spans prompt and answer can change them, so prompts need not be tokenised.
    """
    torn: list[list[int]] = [[] for _ in texts]
    asked: list[_Prompt] = []
    for number, (text, encoding) in enumerate(zip(texts, encodings, strict=True)):
        if isinstance(encoding, TemplateError):
            continue
        ids = encoding.ids
        for begin in text.begins:
            first = _first_token(encoding, begin, len(text.text))
            if by_look:
                if first is not None and _characters(encoding, first)[0] < begin:
                    torn[number].append(begin)
                continue
            behind = len(ids) if first is None else first
            start, at, is_at_once = _last_special(tokenizer, text.text, encoding, ids, behind)
            if not (is_at_once and _characters(encoding, start)[1] == begin):
                asked.append(_Prompt(number, begin, text.text[at:begin], ids[start:behind], behind))
    # A tokenizer may treat the start of a text specially, so prompts that differ are compared from the beginning.
    whole = [
        one._replace(text=texts[one.number].text[: one.begin], ids=encoding.ids[: one.behind])
        for one in _become_others(tokenizer, asked)
        if not isinstance(encoding := encodings[one.number], TemplateError)
    ]
    for one in _become_others(tokenizer, whole):
        torn[one.number].append(one.begin)
    return torn


def _become_others(tokenizer: ChatTokenizer, prompts: list[_Prompt]) -> list[_Prompt]:
    """Return the prompts whose ids differ when tokenised alone."""
    texts = list({one.text.removesuffix(CUT): None for one in prompts})
    alone = dict(zip(texts, _encode(tokenizer, texts), strict=True))
    return [
        one
        for one in prompts
        if isinstance(found := alone[one.text.removesuffix(CUT)], TemplateError) or found.ids != one.ids
    ]


def _characters(encoding: Encoding, token: int) -> tuple[int, int]:
    return encoding.token_to_chars(token) or (0, 0)


def _first_token(encoding: Encoding, begin: int, end: int) -> int | None:
    """Return the first token of the characters from ``begin`` up to ``end``; None if all are dropped."""
    return next((token for at in range(begin, end) if (token := encoding.char_to_token(at)) is not None), None)


def _last_special(
    tokenizer: ChatTokenizer, text: str, encoding: Encoding, ids: list[int], behind: int
) -> tuple[int, int, bool]:
    """Return the last special token before a token, its first character, and whether it is adjacent."""
    special = tokenizer.special_ids
    for token in range(behind - 1, -1, -1):
        if ids[token] in special:
            begin, end = _characters(encoding, token)
            if text[begin:end].strip() == special[ids[token]]:  # an unknown letter is <unk>, a special token too
                return token, begin, token == behind - 1
    return 0, 0, False


def _cut(text: Rendered, begins: list[int]) -> Rendered:
    """Put ``CUT`` where each of some answers begins."""
    pieces, at = [], 0
    for begin in begins:
        pieces += [text.text[at:begin], CUT]
        at = begin
    pieces.append(text.text[at:])
    return replace(
        text,
        text="".join(pieces),
        answers=tuple(
            (begin + bisect.bisect_right(begins, begin), end + bisect.bisect_left(begins, end))
            for begin, end in text.answers
        ),
        begins=tuple(begin + bisect.bisect_right(begins, begin) for begin in text.begins),
    )


def _tokens(tokenizer: ChatTokenizer, text: Rendered, encoding: Encoding | TemplateError) -> Tokens | TemplateError:
    if isinstance(encoding, TemplateError):
        return encoding
    if tokenizer.vocabulary is not None and max(encoding.ids, default=0) >= tokenizer.vocabulary:
        # torch raises an IndexError on the CPU; on a GPU an assertion kills the process.
        return TemplateError(
            f"has a token beyond the model's embedding of {tokenizer.vocabulary:,} tokens",
            "use this model's own tokenizer.json, or remove that text from the row",
        )
    if is_marked(text.text) and not _is_read_right(tokenizer, text.text, encoding):
        return TemplateError(
            "has a special token in its text, which this model's tokenizer cannot read as text",
            "remove the special token from the row's text",
        )
    answers = (_tokens_of(encoding, begin, end) for begin, end in text.answers)
    return Tokens(encoding.ids, [found for found in answers if found[1] > found[0]], is_cut=False)


def _is_read_right(tokenizer: ChatTokenizer, text: str, encoding: Encoding) -> bool:
    """Check the marked tokenizer against the unmarked one: no hidden text became a token, the rest reads the same."""
    special = tokenizer.special_ids
    if HIDE in text:
        for token, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token in special and HIDE in text[begin:end] and text[begin:end].replace(HIDE, "") == special[token]:
                return False
    if not tokenizer.looks_again:
        return True
    plain = harmless(text, tokenizer.special_pattern)
    if plain is None:
        return False
    ids = [one.encode(plain, add_special_tokens=False).ids for one in (tokenizer.tokenizer, tokenizer.marked)]
    return ids[0] == ids[1]


def _tokens_of(encoding: Encoding, begin: int, end: int) -> tuple[int, int]:
    """Return (first, past the last) of the tokens of the characters from ``begin`` up to ``end``.

    Asks the library about single characters: making all offsets would cost more than tokenising.
    """
    first = _first_token(encoding, begin, end)
    positions = range(end - 1, begin - 1, -1)
    last = next((token for at in positions if (token := encoding.char_to_token(at)) is not None), None)
    if first is None or last is None:  # the tokenizer drops all of it
        return 0, 0
    # A character may be several byte tokens; the library returns the first.
    while (characters := encoding.token_to_chars(last + 1)) and characters[0] < end:
        last += 1
    return first, last + 1
