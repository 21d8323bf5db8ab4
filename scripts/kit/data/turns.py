"""The turns of a conversation: who speaks, what they say, and what is refused instead of losing some of it."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant")
# Who speaks, in the words of ShareGPT and of those who copied it.
_SPEAKERS = {
    "system": "system",
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bot", "bing", "bard"), "assistant"),
}
_TOOL_ROLES = frozenset({"tool", "function", "function_call", "function_response", "observation", "ipython"})
# Keys other tools give a meaning that would be lost here, with the values that mean nothing.
NOTHING: tuple[Any, ...] = (None, "", [], {})
_NOT_SUPPORTED: dict[str, dict[str, tuple[Any, ...]]] = {
    "row": dict.fromkeys(("tools", "functions", "history", "rejected"), NOTHING),
    "turn": {"tool_calls": NOTHING, "function_call": NOTHING, "weight": (None, 1)},
}
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})  # Unicode categories: blanks, controls, marks of direction
_NAME_SHOWN = 40  # characters of a name out of the data


@dataclass(frozen=True)
class Message:
    """One turn. ``is_answer`` marks the turns the loss is taken on."""

    role: str
    content: str
    is_answer: bool = False


class RowError(ValueError):
    """Why a row cannot be trained on, as the row's predicate, and how to mend it."""

    def __init__(self, message: str, fix: str) -> None:
        """Keep both parts apart, as findings show them."""
        super().__init__(message)
        self.fix = fix


def keyed_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object of its pairs; Python's own reading keeps the last of two that have one key, without a word.

    Raises:
        RowError: A key is there twice.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise RowError(f"has the key {shown(twice)} twice in one object", "keep the one that is meant")
    return made


def chat(value: Any, key: str, *, answers: bool) -> tuple[Message, ...]:
    """Read a list of turns.

    Raises:
        RowError: It is none, or one of them cannot be trained on.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:  # a table's cell holds text: turns are written in it as JSON
            value = json.loads(value, object_pairs_hook=keyed_once)
        except RowError:
            raise
        except (ValueError, RecursionError) as exc:
            raise RowError(f"has {key} that is text, and not valid JSON", f"write {key} as a JSON list") from exc
    if not isinstance(value, list) or not value:
        found = "an empty list" if value == [] else kind_of(value)
        raise RowError(f"has {key} that is {found}", f"{key} must be a list of turns, each with role and content")
    return tuple(_turn(turn, key, answers=answers) for turn in value)


def _turn(turn: Any, key: str, *, answers: bool) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"has a turn in {key} that is {kind_of(turn)}", "each turn needs role and content")
    refuse_unsupported(turn, "turn")
    if "from" in turn and turn.get("role") is None:
        said, content = text_of(turn, "from"), "content" if "value" not in turn and "content" in turn else "value"
        role = _SPEAKERS.get(said.lower(), said)
    else:
        said, content = text_of(turn, "role"), "value" if "content" not in turn and "value" in turn else "content"
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
        return "".join(text_of(part, "text") for part in parts)
    return text_of(turn, key)


def check_turns(messages: tuple[Message, ...]) -> None:
    """Refuse turns that no template could carry or that teach nothing.

    Raises:
        RowError: With what is wrong.
    """
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


def refuse_unsupported(mapping: dict[str, Any], kind: str) -> None:
    """Refuse keys of a ``row`` or a ``turn`` whose meaning would be lost.

    Raises:
        RowError: With the key.
    """
    for key, harmless in _NOT_SUPPORTED[kind].items():
        if mapping.get(key) not in harmless:
            raise RowError(
                f"has {key} in its {kind}, which would be lost", f"write it as text in the turns, or take {key} out"
            )


def text_of(row: dict[str, Any], key: str) -> str:
    """Return one text of a row or a turn.

    Raises:
        RowError: It is missing, no text, or holds half of a character.
    """
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
    return names.get(type(value)) or str(getattr(value, "kind", f"of type {type(value).__name__}"))
