"""Rows of a JSONL file as conversations, whichever of the usual shapes they are written in.

Recognised: ``messages`` (chat), ``prompt``/``completion`` (text or chat), ``instruction``/``input``/``output``.
Every row becomes either a conversation or a problem with its line: nothing is dropped in between.
"""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.findings import Finding, error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

ROLES = ("system", "user", "assistant")
_SHAPES = "messages, prompt/completion or instruction/input/output"
# Keys other tools give a meaning that would be lost here, with the values that mean nothing.
_NOT_SUPPORTED: dict[str, dict[str, tuple[Any, ...]]] = {
    "row": {"tools": (None, "", []), "functions": (None, "", []), "system": (None, ""), "history": (None, [])},
    "turn": {"tool_calls": (None, []), "function_call": (None, {}), "weight": (None, 1)},
}
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})  # Unicode categories: blanks, controls, marks of direction
_LINES_SHOWN = 8
_KINDS_SHOWN = 12
_NAME_SHOWN = 40  # characters of a name out of the data


@dataclass(frozen=True)
class Message:
    """One turn. ``is_answer`` marks the turns the loss is taken on."""

    role: str
    content: str
    is_answer: bool = False


@dataclass(frozen=True)
class Conversation:
    """One row of the data, at its line (counted from 1)."""

    messages: tuple[Message, ...]
    line: int


@dataclass(frozen=True)
class RowProblem:
    """Why one row cannot be trained on."""

    line: int
    message: str
    fix: str


class _RowError(ValueError):
    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


def read_conversations(path: Path) -> Iterator[Conversation | RowProblem]:
    """Stream a JSONL file row by row, in bounded memory; blank lines are passed over.

    Raises:
        OSError: The file cannot be opened or read.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
                raw = raw[3:]  # noqa: PLW2901 - a byte order mark says nothing about the row
            if not raw.strip():
                continue
            try:
                yield Conversation(_messages_of(_parse(raw)), number)
            except _RowError as exc:
                yield RowProblem(number, str(exc), exc.fix)


def _parse(raw: bytes) -> dict[str, Any]:
    if b"\0" in raw:
        raise _RowError("holds NUL bytes, as UTF-16 does", "save the file as UTF-8")
    try:
        row = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as exc:
        raise _RowError("is not UTF-8", "save the file as UTF-8") from exc
    except (ValueError, RecursionError) as exc:  # ValueError: a number of thousands of digits
        reason = exc.msg if isinstance(exc, json.JSONDecodeError) else "nested too deep, or a number too long"
        raise _RowError(f"is not valid JSON ({reason})", "write one complete JSON object per line") from exc
    if not isinstance(row, dict):
        raise _RowError(f"is {_kind(row)}, not a JSON object", f"write one object per line with {_SHAPES}")
    return row


def _messages_of(row: dict[str, Any]) -> tuple[Message, ...]:
    _refuse_unsupported(row, "row")
    if "messages" in row:
        messages = _chat(row["messages"], "messages", answers=True)
    elif "prompt" in row or "completion" in row:
        messages = _prompt_completion(row)
    elif "instruction" in row or "output" in row:
        instruction = _text(row, "instruction")
        given = "" if row.get("input") is None else _text(row, "input")
        user = f"{instruction}\n\n{given}" if given.strip() else instruction
        messages = (Message("user", user), Message("assistant", _text(row, "output"), is_answer=True))
    else:
        found = ", ".join(map(_shown, sorted(row)[:6])) or "nothing"
        raise _RowError(f"has none of the known shapes (found: {found})", f"use {_SHAPES}")
    _check_turns(messages)
    return messages


def _prompt_completion(row: dict[str, Any]) -> tuple[Message, ...]:
    if isinstance(row.get("prompt"), list):
        prompt = _chat(row["prompt"], "prompt", answers=False)
        completion = row.get("completion")
        if isinstance(completion, list):
            return prompt + _chat(completion, "completion", answers=True)
        return (*prompt, Message("assistant", _text(row, "completion"), is_answer=True))
    return (
        Message("user", _text(row, "prompt")),
        Message("assistant", _text(row, "completion"), is_answer=True),
    )


def _chat(value: Any, key: str, *, answers: bool) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        found = "an empty list" if value == [] else _kind(value)
        raise _RowError(f"has {key} that is {found}", f"{key} must be a list of turns, each with role and content")
    messages = []
    for turn in value:
        if not isinstance(turn, dict):
            raise _RowError(f"has a turn in {key} that is {_kind(turn)}", "each turn needs role and content")
        _refuse_unsupported(turn, "turn")
        role = _text(turn, "role")
        if role not in ROLES:
            raise _RowError(f"has the role {_shown(role)} in {key}", f"roles are {', '.join(ROLES)}")
        messages.append(Message(role, _text(turn, "content"), is_answer=answers and role == "assistant"))
    return tuple(messages)


def _check_turns(messages: tuple[Message, ...]) -> None:
    dialogue = [message for message in messages if message.role != "system"]
    if any(message.role == "system" for message in messages[1:]):
        raise _RowError(
            "has a system message that is not first", "put the system message first, or into the user's turn"
        )
    for position, message in enumerate(dialogue):
        if message.role != ("user", "assistant")[position % 2]:
            raise _RowError("has turns out of order", "turns must alternate user, assistant, beginning with user")
    for message in messages:
        if _is_blank(message.content):
            raise _RowError(f"has an empty {message.role} turn", "write the turn's text, or take the turn or row out")
    if not any(message.is_answer for message in messages):
        raise _RowError("has no assistant turn, so there is nothing to learn", "add the answer, or take the row out")


def _refuse_unsupported(mapping: dict[str, Any], kind: str) -> None:
    for key, harmless in _NOT_SUPPORTED[kind].items():
        if mapping.get(key) not in harmless:
            raise _RowError(
                f"has {key} in its {kind}, which would be lost", f"write it as text in the turns, or take {key} out"
            )


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        raise _RowError(f"has no {key}", f"add {key}, or take the row out")
    if not isinstance(value, str):
        raise _RowError(f"has {key} that is {_kind(value)}, not text", f"write {key} as a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise _RowError(f"has half of a character (a lone surrogate) in {key}", "write the whole character") from exc
    return value


def _is_blank(text: str) -> bool:
    return all(unicodedata.category(character) in _INVISIBLE for character in text)


def _shown(name: str) -> str:
    """Quote a name out of the data for the terminal: cut, with what does not print escaped."""
    return repr(name if len(name) <= _NAME_SHOWN else f"{name[:_NAME_SHOWN]}…")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def collapse(path: Path, problems: Iterable[RowProblem], id: str = "data.row") -> list[Finding]:  # noqa: A002
    """Turn row problems into findings: one for each kind of problem, with its first lines and how many there are.

    After the first kinds, the rest becomes one finding: a file of other shapes can hold a new kind in every row.
    """
    lines: dict[tuple[str, str], list[int]] = defaultdict(list)
    for problem in problems:
        kind = (problem.message, problem.fix)
        if kind not in lines and len(lines) >= _KINDS_SHOWN:
            kind = ("cannot be trained on for other reasons", "mend the rows above first, then run this again")
        lines[kind].append(problem.line)
    return [
        error(id, f"{rows_at(numbers)} {message}", fix, f"{path}:{numbers[0]}")
        for (message, fix), numbers in lines.items()
    ]


def rows_at(numbers: list[int]) -> str:
    """Say which rows: ``the row at line 3``, or ``each of 12 rows (lines 3, 9, 10, …)`` cut after the first few."""
    if len(numbers) == 1:
        return f"the row at line {numbers[0]}"
    shown = ", ".join(map(str, numbers[:_LINES_SHOWN]))
    return f"each of {len(numbers):,} rows (lines {shown}{', …' if len(numbers) > _LINES_SHOWN else ''})"
