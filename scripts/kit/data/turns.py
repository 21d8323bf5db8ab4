"""The turns of a conversation; what cannot be kept whole is rejected."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.data.row_values import NOTHING, RowError, is_blank, keyed_once, kind_of, shown, text_of
from kit.data.turn_keys import FLAGS, NOTHING_BESIDE, SPOKEN, Flags, beside_of, is_learnt, lost, refuse_others

if TYPE_CHECKING:
    from collections.abc import Sequence

ROLES = ("system", "user", "assistant")
# Role names of ShareGPT and formats derived from it.
_SPEAKERS = {
    "system": "system",
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bot", "bing", "bard"), "assistant"),
}
_TOOL_ROLES = frozenset({"tool", "function", "function_call", "function_response", "observation", "ipython"})
_PART = ("type", "text")
# A row is rendered once per answer, and tokenising takes 200 bytes per character. Beyond these limits a row would take
# all memory, or a day, only to be truncated to some thousand tokens.
_MOST_TURNS, MOST_CHARACTERS = 1_000, 8_000_000


@dataclass(frozen=True)
class Message:
    """One turn."""

    role: str
    content: str
    is_answer: bool = False  # it carries loss
    thoughts: tuple[tuple[str, str], ...] = ()  # (key, text) of the reasoning before the content
    left: tuple[str, ...] = field(default=(), compare=False)  # ignored keys

    @property
    def texts(self) -> tuple[str, ...]:
        """Content and thoughts."""
        return (self.content, *(text for _, text in self.thoughts))

    def as_turn(self) -> dict[str, str]:
        """Return the turn as a chat template takes it and files store it."""
        return {"role": self.role, "content": self.content, **dict(self.thoughts)}


def chat(value: Any, key: str, *, answers: bool, masks: Sequence[tuple[str, list[bool]]] = ()) -> tuple[Message, ...]:
    """Read a list of turns; ``masks`` flag each of them as with or without loss, by key.

    Raises:
        RowError: It is not a list of turns, or one of them cannot be trained on.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:  # a table's cell holds turns as JSON text
            value = json.loads(value, object_pairs_hook=keyed_once)
        except RowError:
            raise
        except (ValueError, RecursionError) as exc:
            raise RowError(f"has {key} that is text but not valid JSON", f"write {key} as a JSON list") from exc
    if not isinstance(value, list) or not value:
        found = "an empty list" if value == [] else kind_of(value)
        raise RowError(f"has {key} that is {found}", f"write {key} as a list of turns, each with role and content")
    for name, mask in masks:
        if len(mask) != len(value):
            raise RowError(f"has {len(mask)} values in {name} for {len(value)} turns", "write 0 or 1 for each turn")
    messages = tuple(
        _turn(turn, key, tuple((name, mask[at]) for name, mask in masks), answers=answers)
        for at, turn in enumerate(value)
    )
    if answers and not any(message.is_answer for message in messages):
        named = dict.fromkeys([name for turn in value for name in FLAGS if name in turn] + [name for name, _ in masks])
        if named and any(message.role == "assistant" for message in messages):
            raise RowError(
                f"has no answer to train on: {', '.join(named)} excludes all of them", "include one, or remove the row"
            )
    return messages


def _turn(turn: Any, key: str, flags: Flags, *, answers: bool) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"has a turn in {key} that is {kind_of(turn)}", "write each turn with role and content")
    is_sharegpt = "from" in turn and turn.get("role") in NOTHING
    who, what = ("from", "value") if is_sharegpt else ("role", "content")
    other = {"content": "value", "value": "content"}[what]
    if turn.get(what) in NOTHING and turn.get(other) not in NOTHING:
        what = other
    said = text_of(turn, who)
    # Under `messages` roles are exact; ShareGPT's are spelt in many ways.
    is_free = is_sharegpt or key.startswith("conversation")
    role = _SPEAKERS.get(said.lower(), said) if is_free else said
    if role.lower() in _TOOL_ROLES:
        raise RowError(f"has {shown(role)} turns in {key}: tools are not supported", "write them into a user turn")
    if role not in ROLES:
        raise RowError(f"has the role {shown(said)} in {key}", f"use one of {', '.join(ROLES)}")
    beside = NOTHING_BESIDE
    if not turn.keys() <= {who, what}:
        _refuse_double(turn, who, what, role)
        beside = beside_of(turn)
    if beside.thoughts and role != "assistant":
        raise lost(beside.thoughts[0][0], f"{role} turn", ())
    learnt = is_learnt(role, beside.flags + flags, answers=answers)
    return Message(role, _content(turn, what), learnt, beside.thoughts, beside.left)


def _refuse_double(turn: dict[str, Any], who: str, what: str, role: str) -> None:
    """Reject a second role or text that differs from the one used."""
    for key in SPOKEN:
        value = turn.get(key)
        if value in NOTHING or key in (who, what):
            continue
        is_role = key in ("role", "from")
        said = _SPEAKERS.get(value.lower()) if is_role and isinstance(value, str) else value
        if said != (role if is_role else turn[what]):
            raise RowError(f"has {key} that differs from {who if is_role else what}", "keep one of them")


def _content(turn: dict[str, Any], key: str) -> str:
    parts = turn.get(key)
    if (
        isinstance(parts, list)
        and parts
        and all(isinstance(part, dict) and part.get("type") == "text" and "text" in part for part in parts)
    ):
        for part in parts:
            refuse_others(part, "part of a turn", _PART)
        return "".join(text_of(part, "text") for part in parts)
    return text_of(turn, key)


def check_turns(messages: tuple[Message, ...]) -> None:
    """Reject turns that no template can render or that have nothing to train on.

    Raises:
        RowError: With the first problem.
    """
    characters = sum(len(text) for message in messages for text in message.texts)
    for found, most, what in (
        (len(messages), _MOST_TURNS, "turns"),
        (characters, MOST_CHARACTERS, "characters in its turns"),
    ):
        if found > most:
            raise RowError(f"has more than {most:,} {what}", "split it into several rows, or remove it")
    dialogue = [message for message in messages if message.role != "system"]
    if any(message.role == "system" for message in messages[1:]):
        raise RowError(
            "has a system message that is not first", "put the system message first, or into the user's turn"
        )
    for position, message in enumerate(dialogue):
        if message.role != ("user", "assistant")[position % 2]:
            hint = "; --trim drops answers before the first question" if position == 0 else ""
            raise RowError("has turns out of order", f"alternate user and assistant turns, beginning with user{hint}")
    for message in messages:
        if is_blank(message.content):
            raise RowError(f"has an empty {message.role} turn", "write the turn's text, or remove the turn or the row")
    if not any(message.is_answer for message in messages):
        raise RowError("has no assistant turn, so nothing to train on", "add the answer, or remove the row")
