"""The turns of a conversation: who speaks, what they say, and what is refused instead of losing some of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.data.row_values import NOTHING, RowError, is_blank, keyed_once, kind_of, shown, text_of
from kit.data.turn_keys import FLAGS, NOTHING_BESIDE, SPOKEN, Flags, beside_of, is_learnt, lost, refuse_others

if TYPE_CHECKING:
    from collections.abc import Sequence

ROLES = ("system", "user", "assistant")
# Who speaks, in the words of ShareGPT and of those who copied it.
_SPEAKERS = {
    "system": "system",
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bot", "bing", "bard"), "assistant"),
}
_TOOL_ROLES = frozenset({"tool", "function", "function_call", "function_response", "observation", "ipython"})
_PART = ("type", "text")
# A row is rendered up to each of its answers, and a character costs 200 bytes while it is tokenised. No model reads as
# much: beyond either a row would take a machine's memory, or a day, to be cut at some thousand tokens.
_MOST_TURNS, MOST_CHARACTERS = 1_000, 8_000_000


@dataclass(frozen=True)
class Message:
    """One turn."""

    role: str
    content: str
    is_answer: bool = False  # the loss is taken on it
    thoughts: tuple[tuple[str, str], ...] = ()  # each with the key that templates know it under
    left: tuple[str, ...] = field(default=(), compare=False)  # keys that were left out

    @property
    def texts(self) -> tuple[str, ...]:
        """All of its text."""
        return (self.content, *(text for _, text in self.thoughts))

    def as_turn(self) -> dict[str, str]:
        """Return what a chat template is given, and what is written of it."""
        return {"role": self.role, "content": self.content, **dict(self.thoughts)}


def chat(value: Any, key: str, *, answers: bool, masks: Sequence[tuple[str, list[bool]]] = ()) -> tuple[Message, ...]:
    """Read a list of turns; ``masks`` say of each whether it is learnt, by the key that does.

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
    for name, mask in masks:
        if len(mask) != len(value):
            raise RowError(f"has {name} of {len(mask)} for {len(value)} turns", f"write 0 or 1 in {name} for each turn")
    messages = tuple(
        _turn(turn, key, tuple((name, mask[at]) for name, mask in masks), answers=answers)
        for at, turn in enumerate(value)
    )
    if answers and not any(message.is_answer for message in messages):
        named = dict.fromkeys([name for turn in value for name in FLAGS if name in turn] + [name for name, _ in masks])
        if named and any(message.role == "assistant" for message in messages):
            fix = "say which is, or take the row out"
            raise RowError(f"has no answer that is to be learnt, by its {', '.join(named)}", fix)
    return messages


def _turn(turn: Any, key: str, flags: Flags, *, answers: bool) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"has a turn in {key} that is {kind_of(turn)}", "each turn needs role and content")
    is_sharegpt = "from" in turn and turn.get("role") in NOTHING
    who, what = ("from", "value") if is_sharegpt else ("role", "content")
    other = {"content": "value", "value": "content"}[what]
    if turn.get(what) in NOTHING and turn.get(other) not in NOTHING:
        what = other
    said = text_of(turn, who)
    # Under `messages` roles are exact; ShareGPT's own list is spelt in many ways.
    is_free = is_sharegpt or key.startswith("conversation")
    role = _SPEAKERS.get(said.lower(), said) if is_free else said
    if role.lower() in _TOOL_ROLES:
        raise RowError(f"has {shown(role)} turns in {key}: tools are not supported", "write its text into a user turn")
    if role not in ROLES:
        raise RowError(f"has the role {shown(said)} in {key}", f"roles are {', '.join(ROLES)}")
    beside = NOTHING_BESIDE
    if not turn.keys() <= {who, what}:
        _refuse_double(turn, who, what, role)
        beside = beside_of(turn)
    if beside.thoughts and role != "assistant":
        raise lost(beside.thoughts[0][0], f"{role} turn", ())
    learnt = is_learnt(role, beside.flags + flags, answers=answers)
    return Message(role, _content(turn, what), learnt, beside.thoughts, beside.left)


def _refuse_double(turn: dict[str, Any], who: str, what: str, role: str) -> None:
    """Refuse a second role or text that says something else than the one that is taken."""
    for key in SPOKEN:
        value = turn.get(key)
        if value in NOTHING or key in (who, what):
            continue
        is_role = key in ("role", "from")
        said = _SPEAKERS.get(value.lower()) if is_role and isinstance(value, str) else value
        if said != (role if is_role else turn[what]):
            raise RowError(f"has {key} beside {who if is_role else what} that says something else", "keep one of them")


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
    """Refuse turns that no template could carry or that teach nothing.

    Raises:
        RowError: With what is wrong.
    """
    characters = sum(len(text) for message in messages for text in message.texts)
    for found, most, what in (
        (len(messages), _MOST_TURNS, "turns"),
        (characters, MOST_CHARACTERS, "characters in its turns"),
    ):
        if found > most:
            raise RowError(f"has more than {most:,} {what}", "split it into several rows, or take it out")
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
        if is_blank(message.content):
            raise RowError(f"has an empty {message.role} turn", "write the turn's text, or take the turn or row out")
    if not any(message.is_answer for message in messages):
        raise RowError("has no assistant turn, so there is nothing to learn", "add the answer, or take the row out")
