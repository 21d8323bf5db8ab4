"""What a row of data says, read a second time: its turns, in any shape the kit knows, or why it must be refused.

Only what a row that was taken has to say is decided here; that the kit refuses more than this does is its right.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

_SHAREGPT = {"human": "user", "prompter": "user", "user": "user", "system": "system"}
_NOTHING: tuple[Any, ...] = (None, "", [], {})
_LOST = (
    "tools", "functions", "history", "rejected", "documents", "chat_template_kwargs", "reasoning_content", "thinking",
    "reasoning", "loss_scale", "mask", "masked",
)  # fmt: skip
_FLAGS = ("weight", "loss_weight", "train", "training", "trainable", "loss")
_NAMED = ("id", "uuid", "message_id", "parent_id", "turn_id", "turn_identifier", "index", "timestamp", "created_at")


class Refusal(Exception):  # noqa: N818 - a verdict, not an error
    """The row must not be trained on; the message says why."""


class Turn(NamedTuple):
    """Who says what, whether it is learnt, what is thought before, and the keys that are left behind."""

    role: str
    text: str
    is_learnt: bool = False
    thought: str = ""
    left: tuple[str, ...] = ()


def turns_of(line: bytes) -> tuple[list[Turn], set[str]]:
    """Read a line of JSONL; return its turns, and the keys that must be named as left behind.

    Raises:
        Refusal: It must not be trained on.
    """
    try:
        row = json.loads(line.decode("utf-8"), object_pairs_hook=_object)
    except (ValueError, RecursionError) as exc:
        raise Refusal(f"no JSON in UTF-8: {exc}") from exc
    if not isinstance(row, dict):
        raise Refusal("no object")
    if any(row.get(key) not in _NOTHING for key in _LOST):
        raise Refusal("a key whose meaning would be lost")
    turns, used = _shaped(row)
    for key in (*_FLAGS, "loss_mask"):
        if isinstance(row.get(key), list) and row[key]:
            turns, used = _masked(turns, row[key], used), used | {key}
        elif row.get(key) not in _NOTHING and not (_flag(row[key]) and key != "loss_mask"):
            raise Refusal("a row that is not to be learnt, or a mask of no turn")
    if row.get("system") not in _NOTHING:
        turns = [Turn("system", _text(row["system"])), *turns]
    _check(turns)
    return turns, {*row} - used - {"system"} | {f"{key} of a turn" for turn in turns for key in turn.left}


def _flag(value: Any) -> bool:
    if not isinstance(value, int | float) or value not in (0, 1):
        raise Refusal("a flag that is none")
    return value == 1


def _masked(turns: list[Turn], mask: list[Any], used: set[str]) -> list[Turn]:
    if len(mask) != len(turns) or not used <= {"messages", "conversations", "conversation", *_FLAGS, "loss_mask"}:
        raise Refusal("a mask of other turns")
    if any(_flag(one) and turn.role != "assistant" for one, turn in zip(mask, turns, strict=True)):
        raise Refusal("a question to learn")
    return [turn._replace(is_learnt=turn.is_learnt and _flag(one)) for one, turn in zip(mask, turns, strict=True)]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise Refusal("a key twice")
    return dict(pairs)


def _shaped(row: dict[str, Any]) -> tuple[list[Turn], set[str]]:
    for key in ("messages", "conversations", "conversation"):
        if key in row:
            return _chat(row[key], key), {key}
    if "prompt" in row or "completion" in row:
        prompt, completion = row.get("prompt"), row.get("completion")
        answer = [Turn("assistant", completion, is_learnt=True)] if isinstance(completion, str) else None
        if isinstance(prompt, list):
            head = [turn._replace(is_learnt=False) for turn in _chat(prompt, "prompt")]
            return head + (answer or _chat(completion, "completion")), {"prompt", "completion"}
        return _pair(prompt, completion), {"prompt", "completion"}
    if "instruction" in row or "output" in row:
        question = _text(row.get("instruction"))
        given = row.get("input")
        if given is not None and _text(given).strip():
            question += f"\n\n{given}"
        return _pair(question, row.get("output")), {"instruction", "input", "output"}
    if "question" in row or "answer" in row:
        return _pair(row.get("question"), row.get("answer")), {"question", "answer"}
    raise Refusal("no shape that is known")


def _pair(question: Any, answer: Any) -> list[Turn]:
    return [Turn("user", _text(question)), Turn("assistant", _text(answer), is_learnt=True)]


def _chat(value: Any, key: str) -> list[Turn]:
    if isinstance(value, str):
        try:
            value = json.loads(value, object_pairs_hook=_object)
        except (ValueError, RecursionError) as exc:
            raise Refusal("turns that are no JSON") from exc
    if not isinstance(value, list):
        raise Refusal("turns that are no list")
    return [_turn(turn, key) for turn in value]


def _turn(turn: Any, key: str) -> Turn:
    if not isinstance(turn, dict):
        raise Refusal("a turn that is none")
    says = {name: value for name, value in turn.items() if value not in _NOTHING}
    roles = [_SHAREGPT.get(_text(says[name]).lower(), "assistant") for name in ("role", "from") if name in says]
    texts = [says[name] for name in ("content", "value") if name in says]
    if not roles or len(set(roles)) > 1 or not texts or any(text != texts[0] for text in texts):
        raise Refusal("a turn of nobody, of nothing, or of two")
    role = roles[0]
    if "role" in says and "from" not in says and not key.startswith("conversation"):
        role = says["role"]
    text = "".join(map(_part, texts[0])) if isinstance(texts[0], list) else _text(texts[0])
    flags = [_flag(says.pop(name)) for name in _FLAGS if name in says]
    if len(set(flags)) > 1 or (any(flags) and (role != "assistant" or key == "prompt")):
        raise Refusal("flags that contradict each other, or ask for a question to be learnt")
    thoughts = [_text(says.pop(name)) for name in ("reasoning_content", "reasoning", "thinking") if name in says]
    seen = [one for one in thoughts if any(letter.isprintable() and not letter.isspace() for letter in one)]
    if seen and (role != "assistant" or turn.get("reasoning_content") != seen[0] or len(seen) > 1):
        raise Refusal("a thought that the template does not write")
    left = tuple(name for name in says if name in _NAMED)
    if says.keys() - {"role", "from", "content", "value", *left}:
        raise Refusal("a key that nobody knows")
    return Turn(role, text, role == "assistant" and False not in flags, "".join(seen), left)


def _part(part: Any) -> str:
    if not isinstance(part, dict) or {name for name in part if part[name] not in _NOTHING} - {"type", "text"}:
        raise Refusal("a part that is none, or says more")
    return _text(part.get("text"))


def _check(turns: list[Turn]) -> None:
    dialogue = turns[1:] if turns and turns[0].role == "system" else turns
    if any(turn.role != ("user", "assistant")[at % 2] for at, turn in enumerate(dialogue)):
        raise Refusal("turns that do not alternate")
    if not all(turn.text.strip() for turn in turns):
        raise Refusal("an empty turn")
    if not any(turn.is_learnt for turn in turns):
        raise Refusal("nothing to learn")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Refusal("something that is no text")
    return value
