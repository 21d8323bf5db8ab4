"""One row, in whichever of the usual shapes it is written, as the turns of a conversation.

Recognised: ``messages`` (chat), ``conversations`` (ShareGPT), ``prompt``/``completion`` (text or chat),
``instruction``/``input``/``output`` (Alpaca), ``question``/``answer``; plain ``text`` and any other columns where the
person says what they are. A row that means more than can be carried over is refused, not shortened.
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ROLES = ("system", "user", "assistant")
KNOWN = "messages, conversations, prompt/completion, instruction/input/output or question/answer"
# Who speaks, in the words of ShareGPT and of those who copied it.
_SPEAKERS = {
    "system": "system",
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bot", "bing", "bard"), "assistant"),
}
_TOOL_ROLES = frozenset({"tool", "function", "function_call", "function_response", "observation", "ipython"})
# Keys other tools give a meaning that would be lost here, with the values that mean nothing.
_NOTHING: tuple[Any, ...] = (None, "", [], {})
_NOT_SUPPORTED: dict[str, dict[str, tuple[Any, ...]]] = {
    "row": dict.fromkeys(("tools", "functions", "history", "rejected"), _NOTHING),
    "turn": {"tool_calls": _NOTHING, "function_call": _NOTHING, "weight": (None, 1)},
}
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})  # Unicode categories: blanks, controls, marks of direction
_NAME_SHOWN = 40  # characters of a name out of the data
_NAMES_SHOWN = 6


@dataclass(frozen=True)
class Message:
    """One turn. ``is_answer`` marks the turns the loss is taken on."""

    role: str
    content: str
    is_answer: bool = False


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


class RowError(ValueError):
    """Why a row cannot be trained on, as the row's predicate, and how to mend it."""

    def __init__(self, message: str, fix: str) -> None:
        """Keep both parts apart, as findings show them."""
        super().__init__(message)
        self.fix = fix


def shape_row(row: dict[str, Any], reading: Reading = PLAIN) -> Shaped:
    """Read one row.

    Raises:
        RowError: It is no conversation that can be trained on.
    """
    _refuse_unsupported(row, "row")
    if reading.columns:
        messages, used = _mapped(row, reading.columns)
        shape = "mapped columns"
    else:
        shape, messages, used = _recognised(row, reading)
        messages = _with_system(row, messages)
    trimmed = 0
    if reading.trim:
        messages, trimmed = _trim(messages)
    _check_turns(messages)
    return Shaped(messages, shape, trimmed, tuple(key for key in row if key not in used and key != "system"))


def _recognised(row: dict[str, Any], reading: Reading) -> tuple[str, tuple[Message, ...], set[str]]:
    for key in ("messages", "conversations", "conversation"):
        if key in row:
            return key, _chat(row[key], key, answers=True), {key}
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
    if row.get("system") in _NOTHING:
        return messages
    if messages[0].role == "system":
        raise RowError("has a system message of its own beside the one in its turns", "keep one of them")
    return (Message("system", _text(row, "system")), *messages)


def _trim(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], int]:
    head = messages[:1] if messages[0].role == "system" else ()
    rest = messages[len(head) :]
    kept = tuple(itertools.dropwhile(lambda message: message.role == "assistant", rest))
    return head + kept, len(rest) - len(kept)


def _unknown(row: dict[str, Any]) -> RowError:
    found = ", ".join(shown(str(key)) for key in sorted(row, key=str)[:_NAMES_SHOWN]) or "nothing"
    if row.get("chosen") not in _NOTHING:
        return RowError("has a preference (chosen), and this kit trains on answers", "write chosen as the completion")
    return RowError(f"has none of the known shapes (found: {found})", f"use {KNOWN}, or name the columns with --map")


def _prompt_completion(row: dict[str, Any]) -> tuple[Message, ...]:
    if isinstance(row.get("prompt"), list):
        prompt = _chat(row["prompt"], "prompt", answers=False)
        completion = row.get("completion")
        if isinstance(completion, list):
            return prompt + _chat(completion, "completion", answers=True)
        return (*prompt, _answer(_text(row, "completion")))
    return Message("user", _text(row, "prompt")), _answer(_text(row, "completion"))


def _alpaca(row: dict[str, Any]) -> tuple[Message, ...]:
    instruction = _text(row, "instruction")
    given = "" if row.get("input") is None else _text(row, "input")
    user = f"{instruction}\n\n{given}" if given.strip() else instruction
    return Message("user", user), _answer(_text(row, "output"))


def _question_answer(row: dict[str, Any]) -> tuple[Message, ...]:
    for key in ("context", "choices", "options"):
        if row.get(key) not in _NOTHING:
            raise RowError(
                f"has {key} beside its question, which would be lost",
                f"write {key} into the question, or leave it out on purpose: --map user=question assistant=answer",
            )
    return Message("user", _text(row, "question")), _answer(_text(row, "answer"))


def _plain_text(row: dict[str, Any], reading: Reading) -> tuple[Message, ...]:
    if reading.text_prompt is None:
        raise RowError(
            "is plain text, which holds no answer to learn",
            "say what the text answers (--text-prompt 'Write a paragraph.'), or write it as prompt and completion",
        )
    return Message("user", reading.text_prompt), _answer(_text(row, "text"))


def _mapped(row: dict[str, Any], columns: Mapping[str, str]) -> tuple[tuple[Message, ...], set[str]]:
    used = set(columns.values())
    for column in used:
        if column not in row and column != columns.get("system"):
            found = ", ".join(shown(str(key)) for key in list(row)[:_NAMES_SHOWN]) or "nothing"
            raise RowError(f"has no column {shown(column)} (found: {found})", "name one of its columns with --map")
    if "messages" in columns:
        messages = _chat(row[columns["messages"]], columns["messages"], answers=True)
    else:
        messages = Message("user", _text(row, columns["user"])), _answer(_text(row, columns["assistant"]))
    system = columns.get("system")
    if system and row.get(system) not in _NOTHING:
        messages = (Message("system", _text(row, system)), *messages)
    return messages, used


def _answer(text: str) -> Message:
    return Message("assistant", text, is_answer=True)


def _chat(value: Any, key: str, *, answers: bool) -> tuple[Message, ...]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:  # a table's cell holds text: turns are written in it as JSON
            value = json.loads(value)
        except (ValueError, RecursionError) as exc:
            raise RowError(f"has {key} that is text, and not valid JSON", f"write {key} as a JSON list") from exc
    if not isinstance(value, list) or not value:
        found = "an empty list" if value == [] else kind_of(value)
        raise RowError(f"has {key} that is {found}", f"{key} must be a list of turns, each with role and content")
    return tuple(_turn(turn, key, answers=answers) for turn in value)


def _turn(turn: Any, key: str, *, answers: bool) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"has a turn in {key} that is {kind_of(turn)}", "each turn needs role and content")
    _refuse_unsupported(turn, "turn")
    if "from" in turn and turn.get("role") is None:
        said, content = _text(turn, "from"), "content" if "value" not in turn and "content" in turn else "value"
        role = _SPEAKERS.get(said.lower(), said)
    else:
        said, content = _text(turn, "role"), "value" if "content" not in turn and "value" in turn else "content"
        # Under `messages` roles are exact; ShareGPT's own list is spelt in many ways.
        role = _SPEAKERS.get(said.lower(), said) if key.startswith("conversation") else said
    if role.lower() in _TOOL_ROLES:
        raise RowError(f"has {shown(role)} turns in {key}: tools are not supported", "write its text into a user turn")
    if role not in ROLES:
        raise RowError(f"has the role {shown(said)} in {key}", f"roles are {', '.join(ROLES)}")
    return Message(role, _content(turn, content), is_answer=answers and role == "assistant")


def _content(turn: dict[str, Any], key: str) -> str:
    parts = turn.get(key)
    if (
        isinstance(parts, list)
        and parts
        and all(isinstance(part, dict) and part.get("type") == "text" and "text" in part for part in parts)
    ):
        return "".join(_text(part, "text") for part in parts)
    return _text(turn, key)


def _check_turns(messages: tuple[Message, ...]) -> None:
    dialogue = [message for message in messages if message.role != "system"]
    if any(message.role == "system" for message in messages[1:]):
        raise RowError(
            "has a system message that is not first", "put the system message first, or into the user's turn"
        )
    for position, message in enumerate(dialogue):
        if message.role != ("user", "assistant")[position % 2]:
            hint = "; an answer in front is left out with --trim" if position == 0 else ""
            raise RowError("has turns out of order", f"turns must alternate user, assistant, beginning with user{hint}")
    for message in messages:
        if _is_blank(message.content):
            raise RowError(f"has an empty {message.role} turn", "write the turn's text, or take the turn or row out")
    if not any(message.is_answer for message in messages):
        raise RowError("has no assistant turn, so there is nothing to learn", "add the answer, or take the row out")


def _refuse_unsupported(mapping: dict[str, Any], kind: str) -> None:
    for key, harmless in _NOT_SUPPORTED[kind].items():
        if mapping.get(key) not in harmless:
            raise RowError(
                f"has {key} in its {kind}, which would be lost", f"write it as text in the turns, or take {key} out"
            )


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        raise RowError(f"has no {shown_key(key)}", f"add {shown_key(key)}, or take the row out")
    if not isinstance(value, str):
        name = shown_key(key)
        raise RowError(f"has {name} that is {kind_of(value)}, not text", f"write {name} as a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise RowError(
            f"has half of a character (a lone surrogate) in {shown_key(key)}", "write the whole character"
        ) from exc
    return value


def _is_blank(text: str) -> bool:
    return all(unicodedata.category(character) in _INVISIBLE for character in text)


def shown(name: str) -> str:
    """Quote a name out of the data for the terminal: cut, with what does not print escaped."""
    return repr(name if len(name) <= _NAME_SHOWN else f"{name[:_NAME_SHOWN]}…")


def shown_key(name: str) -> str:
    """Show a key as it is where it is a plain word, quoted where it could be anything."""
    return name if name.isidentifier() and len(name) <= _NAME_SHOWN else shown(name)


def kind_of(value: Any) -> str:
    """Name a value's JSON kind."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    names |= {int: "a number", float: "a number", bytes: "binary"}
    return names.get(type(value), f"of type {type(value).__name__}")
