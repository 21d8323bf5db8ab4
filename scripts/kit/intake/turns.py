"""A row's turns: split, written and compared."""

from __future__ import annotations

import itertools
import json
import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kit.data.row_values import RowError
from kit.data.turns import MOST_CHARACTERS

if TYPE_CHECKING:
    from kit.data.turns import Message

# Of the rows made from one row: each is rendered once per answer in it.
_MOST_ANSWERS, _MOST_CHARACTERS = 200, 4 * MOST_CHARACTERS


def one_answer_each(messages: tuple[Message, ...]) -> list[tuple[Message, ...]]:
    """Return one conversation per answer with loss: that answer, with all turns before it as prompt.

    Raises:
        RowError: Together they would be too large for memory.
    """
    answers = [position for position, message in enumerate(messages) if message.is_answer]
    if answers == [len(messages) - 1]:
        return [messages]
    ends = itertools.accumulate(sum(map(len, message.texts)) for message in messages)
    characters = sum(end for end, message in zip(ends, messages, strict=True) if message.is_answer)
    if len(answers) > _MOST_ANSWERS or characters > _MOST_CHARACTERS:
        found = f"would become {len(answers):,} rows of {characters:,} characters in all"
        allowed = f"{_MOST_ANSWERS} rows and {_MOST_CHARACTERS:,} characters are allowed"
        raise RowError(f"{found}; {allowed}", "split it into several rows, or omit --split-turns")
    asked = tuple(replace(message, is_answer=False) for message in messages)
    return [(*asked[:position], messages[position]) for position in answers]


def written(messages: tuple[Message, ...], whole: tuple[Message, ...]) -> bytes:
    """Write a row as ``messages``; as ``prompt``/``completion`` if its first answers carry no loss, or it is a part.

    A later answer without loss gets ``"weight": 0``.
    """
    first = next(position for position, message in enumerate(messages) if message.is_answer)
    turns: list[dict[str, Any]] = [message.as_turn() for message in messages]
    for message, turn in zip(messages[first:], turns[first:], strict=True):
        if message.role == "assistant" and not message.is_answer:
            turn["weight"] = 0
    if messages is not whole or any(message.role == "assistant" for message in messages[:first]):
        row: dict[str, Any] = {"prompt": turns[:first], "completion": turns[first:]}
    else:
        row = {"messages": turns}
    return json.dumps(row, ensure_ascii=False).encode()


def loosely(messages: tuple[Message, ...]) -> str:
    """Return turns for comparison: see ``normalised``."""
    return "\x1e".join("\x1f".join((message.role, *map(normalised, message.texts))) for message in messages)


def normalised(text: str) -> str:
    """Return a text for comparison, ignoring case, whitespace and Unicode forms (NFKC)."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(plain.casefold().split())
