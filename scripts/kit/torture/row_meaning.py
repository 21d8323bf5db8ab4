"""What a row of data says, read a second time: its turns, in any shape the kit knows, or why it must be refused.

Only what a row that was taken has to say is decided here; that the kit refuses more than this does is its right.
"""

from __future__ import annotations

import json
from typing import Any

_SHAREGPT = {"human": "user", "prompter": "user", "user": "user", "system": "system"}
_NOTHING: tuple[Any, ...] = (None, "", [], {})


class Refusal(Exception):  # noqa: N818 - a verdict, not an error
    """The row must not be trained on; the message says why."""


Turns = list[tuple[str, str, bool]]  # role, text, whether it is learnt


def turns_of(line: bytes) -> Turns:
    """Read a line of JSONL.

    Raises:
        Refusal: It must not be trained on.
    """
    try:
        row = json.loads(line.decode("utf-8"), object_pairs_hook=_object)
    except (ValueError, RecursionError) as exc:
        raise Refusal(f"no JSON in UTF-8: {exc}") from exc
    if not isinstance(row, dict):
        raise Refusal("no object")
    if any(row.get(key) not in _NOTHING for key in ("tools", "functions", "history", "rejected")):
        raise Refusal("a key whose meaning would be lost")
    turns = _shaped(row)
    if row.get("system") not in _NOTHING:
        turns = [("system", _text(row["system"]), False), *turns]
    _check(turns)
    return turns


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise Refusal("a key twice")
    return dict(pairs)


def _shaped(row: dict[str, Any]) -> Turns:
    for key in ("messages", "conversations", "conversation"):
        if key in row:
            return _chat(row[key], key)
    if "prompt" in row or "completion" in row:
        prompt, completion = row.get("prompt"), row.get("completion")
        answer = [("assistant", completion, True)] if isinstance(completion, str) else None
        if isinstance(prompt, list):
            head = [(role, text, False) for role, text, _ in _chat(prompt, "prompt")]
            return head + (answer or _chat(completion, "completion"))
        return [("user", _text(prompt), False), ("assistant", _text(completion), True)]
    if "instruction" in row or "output" in row:
        question = _text(row.get("instruction"))
        given = row.get("input")
        if given is not None and _text(given).strip():
            question += f"\n\n{given}"
        return [("user", question, False), ("assistant", _text(row.get("output")), True)]
    if "question" in row or "answer" in row:
        return [("user", _text(row.get("question")), False), ("assistant", _text(row.get("answer")), True)]
    raise Refusal("no shape that is known")


def _chat(value: Any, key: str) -> Turns:
    if isinstance(value, str):
        try:
            value = json.loads(value, object_pairs_hook=_object)
        except (ValueError, RecursionError) as exc:
            raise Refusal("turns that are no JSON") from exc
    if not isinstance(value, list):
        raise Refusal("turns that are no list")
    return [_turn(turn, key) for turn in value]


def _turn(turn: Any, key: str) -> tuple[str, str, bool]:
    if not isinstance(turn, dict) or any(turn.get(name) not in _NOTHING for name in ("tool_calls", "function_call")):
        raise Refusal("a turn that is none, or whose meaning would be lost")
    if turn.get("weight") not in (None, 1):
        raise Refusal("a turn with a weight")
    said = turn.get("role")
    if said is None:
        said = turn.get("from")
    if not isinstance(said, str):
        raise Refusal("a turn of nobody")
    role = said
    if key.startswith("conversation") or "from" in turn:
        role = _SHAREGPT.get(said.lower(), "assistant")
    content = [turn[name] for name in ("content", "value") if name in turn]
    if len(content) != 1:
        text = _text(turn.get("value" if "from" in turn and turn.get("role") is None else "content"))
    elif isinstance(content[0], list):
        text = "".join(_text(part["text"]) for part in content[0])
    else:
        text = _text(content[0])
    return role, text, role == "assistant"


def _check(turns: Turns) -> None:
    dialogue = turns[1:] if turns and turns[0][0] == "system" else turns
    if any(role != ("user", "assistant")[at % 2] for at, (role, _, _) in enumerate(dialogue)):
        raise Refusal("turns that do not alternate")
    if not all(text.strip() for _, text, _ in turns):
        raise Refusal("an empty turn")
    if not any(learnt for _, _, learnt in turns):
        raise Refusal("nothing to learn")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Refusal("something that is no text")
    return value
