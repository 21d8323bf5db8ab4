"""Read one row of any usual shape as the turns of a conversation.

``messages`` (chat), ``conversations`` (ShareGPT), ``prompt``/``completion`` (text or chat), Alpaca's
``instruction``/``input``/``output``, ``question``/``answer``; plain ``text`` and other columns if the user names them.
A row with meaning that the turns cannot hold is rejected, not shortened.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.data.row_values import NOTHING, RowError, near, shown, shown_key, text_of
from kit.data.turn_keys import THOUGHTS, like_a_mask, lost, masks_of
from kit.data.turns import Message, chat, check_turns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAMES_SHOWN, _NAMES_COMPARED = 6, 64
_NOT_SUPPORTED = ("tools", "functions", "history", "rejected", "documents", "chat_template_kwargs")
_LISTS = ("messages", "conversations", "conversation")
_SHAPES = (*_LISTS, "prompt", "completion", "instruction", "output", "question", "answer", "text")
# Columns that belong to a question or an answer and would be ignored beside it.
_ASKED = {"question/answer": ("context", "choices", "options"), "instruction/output": ("context",)}
_SHOWN = ("image", "images", "video", "videos", "audio", "audios")  # nothing that a text model reads
_MEANT_FOR = dict.fromkeys(("system_prompt", "system_message", "system_instruction", "sys_prompt"), "system")
_UNWANTED = {"prompt/completion": "label"}  # TRL's key for a bad answer; LLaMA-Factory's is kto_tag
_ALMOST = 0.85  # likeness of names: `inputs` and `input`, not `items` and `system`
_ON_PURPOSE = {
    **{name: f"messages={name}" for name in _LISTS},
    "prompt/completion": "user=prompt assistant=completion",
    "instruction/output": "user=instruction assistant=output",
    "question/answer": "user=question assistant=answer",
    "text": "user=QUESTION assistant=text",
}
KNOWN = "messages, conversations, prompt/completion, instruction/input/output or question/answer"


@dataclass(frozen=True)
class Reading:
    """What the user says about their rows."""

    # Of user, assistant and system, or of messages; empty to recognise rows.
    columns: Mapping[str, str] = field(default_factory=dict)
    text_prompt: str | None = None  # the user turn before plain text; None rejects plain text
    trim: bool = False  # drop answers before the first question


PLAIN = Reading()


@dataclass(frozen=True)
class NormalizedRow:
    """A row's turns, the shape they were written in, and what was ignored."""

    messages: tuple[Message, ...]
    shape: str  # as the summary counts it
    trimmed: int = 0  # answers dropped before the first question
    unused: tuple[str, ...] = ()  # ignored keys


def shape_row(row: dict[str, Any], reading: Reading = PLAIN) -> NormalizedRow:
    """Read one row.

    Raises:
        RowError: It is not a conversation that can be trained on.
    """
    for key in _NOT_SUPPORTED:
        if row.get(key) not in NOTHING:
            raise lost(key, "row", ())
    masks = masks_of(row, reading.columns.values())
    if reading.columns:
        shape = "mapped columns"
        messages, used = _mapped(row, reading.columns, masks)
        used |= {key for key, _ in masks}
    else:
        shape, messages, used = _recognised(row, reading, masks)
        used |= {"system", *(key for key, _ in masks)}
        _refuse_beside(row, shape, used)
        messages = _with_system(row, messages)
    trimmed = 0
    if reading.trim:
        messages, trimmed = _trim(messages)
    check_turns(messages)
    left = dict.fromkeys(f"{key} of a turn" for message in messages for key in message.left)
    return NormalizedRow(messages, shape, trimmed, (*(str(key) for key in row if key not in used), *left))


def _recognised(
    row: dict[str, Any], reading: Reading, masks: Sequence[tuple[str, list[bool]]]
) -> tuple[str, tuple[Message, ...], set[str]]:
    for key in _LISTS:
        if key in row:
            return key, chat(row[key], key, answers=True, masks=masks), {key}
    _refuse_masks(masks)
    if "prompt" in row or "completion" in row:
        return "prompt/completion", _prompt_completion(row), {"prompt", "completion"}
    if "instruction" in row or "output" in row:
        return "instruction/output", _alpaca(row), {"instruction", "input", "output"}
    if "question" in row or "answer" in row:
        question, answer = text_of(row, "question"), text_of(row, "answer")
        return "question/answer", (Message("user", question), _answer(answer)), {"question", "answer"}
    if "text" in row:
        return "text", _plain_text(row, reading), {"text"}
    raise _unknown(row)


def _refuse_masks(masks: Sequence[tuple[str, list[bool]]]) -> None:
    for key, _ in masks:
        raise RowError(
            f"has {key} as a list, without a list of turns to apply it to",
            f"write the turns as messages, or remove {key}",
        )


def _refuse_beside(row: dict[str, Any], shape: str, used: set[str]) -> None:
    """Reject a column that is part of the question or answer but would be ignored where it is."""
    absent = tuple(
        key for key in (("system", "input") if shape == "instruction/output" else ("system",)) if key not in row
    )
    for key, value in row.items():
        if key in used or value in NOTHING:
            continue
        if value is False and key == _UNWANTED.get(shape, "kto_tag"):
            raise RowError(
                f"has {key}: false, which marks its answer as bad, and the kit trains on every answer",
                f"remove the row, or ignore {key} explicitly: make data … --map {_ON_PURPOSE[shape]}",
            )
        meant = _MEANT_FOR.get(key) or like_a_mask(key) or near(key, absent, _ALMOST)
        if meant or key in THOUGHTS or key in _SHOWN or key in _ASKED.get(shape, ()):
            beside = "its question" if key in _ASKED.get(shape, ()) else "its turns"
            into = f"did you mean {meant}? If not, " if meant else f"write {key} into the text, or "
            raise RowError(
                f"has {shown_key(str(key))} beside {beside}, which would be lost",
                f"{into}ignore it explicitly: make data … --map {_ON_PURPOSE[shape]}",
            )


def _with_system(row: dict[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if row.get("system") in NOTHING:
        return messages
    if messages[0].role == "system":
        raise RowError("has a system column beside the system message in its turns", "keep one of them")
    return (Message("system", text_of(row, "system")), *messages)


def _trim(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], int]:
    head = messages[:1] if messages[0].role == "system" else ()
    rest = messages[len(head) :]
    kept = tuple(itertools.dropwhile(lambda message: message.role == "assistant", rest))
    return head + kept, len(rest) - len(kept)


def _unknown(row: dict[str, Any]) -> RowError:
    found = ", ".join(shown(str(key)) for key in sorted(row, key=str)[:_NAMES_SHOWN]) or "nothing"
    if row.get("chosen") not in NOTHING:
        return RowError("has a preference (chosen), and the kit trains on answers", "write chosen as the completion")
    near_ones = (near(str(key), _SHAPES, _ALMOST) for key in list(row)[:_NAMES_SHOWN])
    meant = next((f"did you mean {name}? If not, " for name in near_ones if name), "")
    fix = f"{meant}use {KNOWN}, or name the columns with --map"
    return RowError(f"has none of the known shapes (found: {found})", fix)


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


def _plain_text(row: dict[str, Any], reading: Reading) -> tuple[Message, ...]:
    if reading.text_prompt is None:
        raise RowError(
            "is plain text, without an answer to train on",
            "give it a prompt (--text-prompt 'Write a paragraph.'), or write it as prompt and completion",
        )
    return Message("user", reading.text_prompt), _answer(text_of(row, "text"))


def _mapped(
    row: dict[str, Any], columns: Mapping[str, str], masks: Sequence[tuple[str, list[bool]]]
) -> tuple[tuple[Message, ...], set[str]]:
    used = set(columns.values())
    for column in used:
        # The system column may be absent, unless another looks like a misspelling of it.
        names = tuple(key.casefold() for key in itertools.islice(row, _NAMES_COMPARED))
        if column not in row and (column != columns.get("system") or near(column, names, _ALMOST)):
            found = ", ".join(shown(str(key)) for key in list(row)[:_NAMES_SHOWN]) or "nothing"
            raise RowError(f"has no column {shown(column)} (found: {found})", "name one of its columns with --map")
    if "messages" in columns:
        messages = chat(row[columns["messages"]], columns["messages"], answers=True, masks=masks)
    else:
        _refuse_masks(masks)
        messages = Message("user", text_of(row, columns["user"])), _answer(text_of(row, columns["assistant"]))
    system = columns.get("system")
    if system and row.get(system) not in NOTHING:
        messages = (Message("system", text_of(row, system)), *messages)
    return messages, used


def _answer(text: str) -> Message:
    return Message("assistant", text, is_answer=True)
