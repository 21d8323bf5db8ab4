"""One row, in whichever of the usual shapes it is written, as the turns of a conversation.

Recognised: ``messages`` (chat), ``conversations`` (ShareGPT), ``prompt``/``completion`` (text or chat),
``instruction``/``input``/``output`` (Alpaca), ``question``/``answer``; plain ``text`` and any other columns where the
person says what they are. A row that means more than can be carried over is refused, not shortened.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.data.turns import NOTHING, Message, RowError, chat, check_turns, refuse_unsupported, shown, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES_SHOWN = 6
KNOWN = "messages, conversations, prompt/completion, instruction/input/output or question/answer"


@dataclass(frozen=True)
class Reading:
    """What a person says about their rows, where the rows' own keys do not.

    Attributes:
        columns: Column of each of ``user``, ``assistant``, ``system``, or of ``messages``; empty to recognise rows.
        text_prompt: The user turn in front of plain ``text``; None to refuse plain text.
        trim: Leave out answers in front of the first question.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    text_prompt: str | None = None
    trim: bool = False


PLAIN = Reading()


@dataclass(frozen=True)
class Shaped:
    """A row's turns, the shape they were written in, and what was left behind.

    Attributes:
        messages: The turns.
        shape: Its name, as the summary counts it.
        trimmed: Turns left out in front.
        unused: Keys that were not carried over.
    """

    messages: tuple[Message, ...]
    shape: str
    trimmed: int = 0
    unused: tuple[str, ...] = ()


def shape_row(row: dict[str, Any], reading: Reading = PLAIN) -> Shaped:
    """Read one row.

    Raises:
        RowError: It is no conversation that can be trained on.
    """
    refuse_unsupported(row, "row")
    if reading.columns:
        messages, used = _mapped(row, reading.columns)
        shape = "mapped columns"
    else:
        shape, messages, used = _recognised(row, reading)
        messages = _with_system(row, messages)
    trimmed = 0
    if reading.trim:
        messages, trimmed = _trim(messages)
    check_turns(messages)
    return Shaped(messages, shape, trimmed, tuple(key for key in row if key not in used and key != "system"))


def _recognised(row: dict[str, Any], reading: Reading) -> tuple[str, tuple[Message, ...], set[str]]:
    for key in ("messages", "conversations", "conversation"):
        if key in row:
            return key, chat(row[key], key, answers=True), {key}
    if "prompt" in row or "completion" in row:
        return "prompt/completion", _prompt_completion(row), {"prompt", "completion"}
    if "instruction" in row or "output" in row:
        return "instruction/output", _alpaca(row), {"instruction", "input", "output"}
    if "question" in row or "answer" in row:
        return "question/answer", _question_answer(row), {"question", "answer"}
    if "text" in row:
        return "text", _plain_text(row, reading), {"text"}
    raise _unknown(row)


def _with_system(row: dict[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if row.get("system") in NOTHING:
        return messages
    if messages[0].role == "system":
        raise RowError("has a system message of its own beside the one in its turns", "keep one of them")
    return (Message("system", text_of(row, "system")), *messages)


def _trim(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], int]:
    head = messages[:1] if messages[0].role == "system" else ()
    rest = messages[len(head) :]
    kept = tuple(itertools.dropwhile(lambda message: message.role == "assistant", rest))
    return head + kept, len(rest) - len(kept)


def _unknown(row: dict[str, Any]) -> RowError:
    found = ", ".join(shown(str(key)) for key in sorted(row, key=str)[:_NAMES_SHOWN]) or "nothing"
    if row.get("chosen") not in NOTHING:
        return RowError("has a preference (chosen), and this kit trains on answers", "write chosen as the completion")
    return RowError(f"has none of the known shapes (found: {found})", f"use {KNOWN}, or name the columns with --map")


def _prompt_completion(row: dict[str, Any]) -> tuple[Message, ...]:
    if isinstance(row.get("prompt"), list):
        prompt = chat(row["prompt"], "prompt", answers=False)
        completion = row.get("completion")
        if isinstance(completion, list):
            return prompt + chat(completion, "completion", answers=True)
        return (*prompt, _answer(text_of(row, "completion")))
    return Message("user", text_of(row, "prompt")), _answer(text_of(row, "completion"))


def _alpaca(row: dict[str, Any]) -> tuple[Message, ...]:
    instruction = text_of(row, "instruction")
    given = "" if row.get("input") is None else text_of(row, "input")
    user = f"{instruction}\n\n{given}" if given.strip() else instruction
    return Message("user", user), _answer(text_of(row, "output"))


def _question_answer(row: dict[str, Any]) -> tuple[Message, ...]:
    for key in ("context", "choices", "options"):
        if row.get(key) not in NOTHING:
            raise RowError(
                f"has {key} beside its question, which would be lost",
                f"write {key} into the question, or leave it out on purpose: --map user=question assistant=answer",
            )
    return Message("user", text_of(row, "question")), _answer(text_of(row, "answer"))


def _plain_text(row: dict[str, Any], reading: Reading) -> tuple[Message, ...]:
    if reading.text_prompt is None:
        raise RowError(
            "is plain text, which holds no answer to learn",
            "say what the text answers (--text-prompt 'Write a paragraph.'), or write it as prompt and completion",
        )
    return Message("user", reading.text_prompt), _answer(text_of(row, "text"))


def _mapped(row: dict[str, Any], columns: Mapping[str, str]) -> tuple[tuple[Message, ...], set[str]]:
    used = set(columns.values())
    for column in used:
        if column not in row and column != columns.get("system"):
            found = ", ".join(shown(str(key)) for key in list(row)[:_NAMES_SHOWN]) or "nothing"
            raise RowError(f"has no column {shown(column)} (found: {found})", "name one of its columns with --map")
    if "messages" in columns:
        messages = chat(row[columns["messages"]], columns["messages"], answers=True)
    else:
        messages = Message("user", text_of(row, columns["user"])), _answer(text_of(row, columns["assistant"]))
    system = columns.get("system")
    if system and row.get(system) not in NOTHING:
        messages = (Message("system", text_of(row, system)), *messages)
    return messages, used


def _answer(text: str) -> Message:
    return Message("assistant", text, is_answer=True)
