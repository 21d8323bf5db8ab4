"""Files of rows: good ones in each shape people have, among damaged ones and ones that were never right."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from torture.damage import BYTES
from torture.fuzzing import Mutant

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

ROWS_IN_A_FILE = 50
_WORDS = (
    "Write", "the", "word", "amber", "backwards.", "rebma", "naïve", "Größe", "日本語", "🙂", "é", "{", "}", '"', "\\",
    "[INST]", "</s>", "<s>", "\n", "\t", "1", "null", "\ufdfd", "\U0001f469\u200d\U0001f467", "\u202e", "\u200b",
)  # fmt: skip
_KEYS = (
    "messages", "conversations", "prompt", "completion", "instruction", "input", "output", "question", "answer",
    "system", "text", "role", "content", "from", "value", "tools", "rejected", "weight", "tool_calls", "context",
    "id", "", "train", "trainable", "loss", "loss_mask", "masked", "reasoning_content", "thinking", "timestamp", "name",
    "contents", "cache_control", "inputs", "system_prompt",
)  # fmt: skip
_JSON_VALUES: tuple[Callable[[Any], Any], ...] = (
    lambda _: None, lambda _: 0, lambda _: 1.5, lambda _: True, lambda _: "", lambda _: " ", lambda _: "\u200b",
    lambda _: [], lambda _: {}, lambda was: [was], lambda was: {"text": was},
    lambda was: [{"type": "text", "text": was}], lambda was: [{"type": "image", "text": was}], json.dumps, str,
    lambda was: [was, was], lambda _: "\ud800",
    lambda _: "x\udc00y", lambda _: 10**30, lambda _: float("nan"), lambda _: float("-inf"), lambda _: "\x00",
    lambda _: json.loads("[" * 200 + "]" * 200), lambda _: "a" * 5_000,
    lambda _: "assistant", lambda _: "User", lambda _: "tool", lambda _: "system",
)  # fmt: skip


def _said(source: Random) -> str:
    return " ".join(source.choice(_WORDS) for _ in range(source.choice([1, 3, 6, 12, 12, 60])))


def _row(source: Random) -> dict[str, Any]:
    """Make a good row in one of the shapes people have."""

    def talk(user: str, model: str, who: str, what: str) -> list[dict[str, Any]]:
        return [{who: (user, model)[at % 2], what: f"a {_said(source)}"} for at in range(source.choice([2, 2, 4, 6]))]

    shape = source.randrange(7)
    if shape == 0:
        row: dict[str, Any] = {"messages": talk("user", "assistant", "role", "content")}
    elif shape == 1:
        row = {"conversations": talk("human", "gpt", "from", "value")}
    elif shape == 2:
        row = {"prompt": f"b {_said(source)}", "completion": f"c {_said(source)}"}
    elif shape == 3:
        turns = talk("user", "assistant", "role", "content")
        row = {"prompt": turns[:-1], "completion": source.choice([turns[-1:], turns[-1]["content"]])}
    elif shape == 4:
        row = {"instruction": f"d {_said(source)}", "input": source.choice(["", _said(source)]), "output": "e"}
    elif shape == 5:
        row = {"question": f"f {_said(source)}", "answer": f"g {_said(source)}"}
    else:
        head = {"role": "system", "content": "Be short."}
        row = {"messages": [head, *talk("user", "assistant", "role", "content")]}
    if source.random() < 0.1:
        row["id"] = source.randrange(1000)
    if source.random() < 0.2:
        _say_more(source, row)
    return row


def _say_more(source: Random, row: dict[str, Any]) -> None:
    """Mask answers but for the last, by flags or by a list, let them think, count turns, write text in parts."""
    turns = row.get("messages") or row.get("conversations")
    if not turns:
        return
    answers = [at for at in range(1, len(turns)) if at % 2 != len(turns) % 2]  # an odd one is a system message
    for turn in turns:
        if "content" in turn and source.random() < 0.2:
            turn["content"] = [{"type": "text", "text": turn["content"]}]
    learnt = {at for at in answers if at == answers[-1] or source.random() < 0.5}
    if source.random() < 0.3:
        row[source.choice(["loss_mask", "train"])] = [int(at in learnt) for at in range(len(turns))]
        return
    key = source.choice(["weight", "train", "loss", "trainable"])
    for at in answers:
        turns[at] |= source.choice([{}, {key: source.choice([int, bool])(at in learnt)}, {"timestamp": at}])
        turns[at] |= source.choice([{}, {}, {"reasoning_content": f"h {_said(source)}"}])


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of everything inside a row."""
    if not isinstance(node, dict | list):
        return []
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    return [(node, key) for key in keys] + [place for key in keys for place in _places(node[key])]


def _other_value(source: Random, row: dict[str, Any]) -> None:
    container, key = source.choice(_places(row))
    container[key] = source.choice(_JSON_VALUES)(container[key])


def _lost_key(source: Random, row: dict[str, Any]) -> None:
    container, key = source.choice(_places(row))
    del container[key]


def _other_key(source: Random, row: dict[str, Any]) -> None:
    container, key = source.choice([place for place in _places(row) if isinstance(place[0], dict)])
    value = container.pop(key)
    place = source.randrange(len(key) + 1)
    container[source.choice([key[:place] + key[place + 1 :], key.upper(), f"{key} ", *_KEYS])] = value


def _more_keys(source: Random, row: dict[str, Any]) -> None:
    container = source.choice([row, *(place[0] for place in _places(row) if isinstance(place[0], dict))])
    container[source.choice(_KEYS)] = source.choice(
        [0, 1, 0.5, False, "more", None, [], ["x"], [0, 1], [0, 0, 0, 1], {"a": 1}, "system", "user"]
    )


def _turns_moved(source: Random, row: dict[str, Any]) -> None:
    lists = [value for value in row.values() if isinstance(value, list) and value]
    if lists:
        turns = source.choice(lists)
        turns.insert(source.randrange(len(turns) + 1), source.choice(turns))
        if source.random() < 0.5:
            del turns[source.randrange(len(turns))]


_ROWS: dict[str, Callable[[Random, dict[str, Any]], None]] = {
    "another value": _other_value,
    "a key lost": _lost_key,
    "another key": _other_key,
    "a key more": _more_keys,
    "turns moved": _turns_moved,
}


def _key_twice(source: Random, line: str) -> str:
    keys = list(re.finditer(r'"(\w+)": ', line))
    key, at = source.choice(keys)[1], source.choice(keys).start()
    return f'{line[:at]}"{key}": "again", {line[at:]}'


def _around(source: Random, line: str) -> str:
    deep = "[" * 5_000
    before, after = source.choice(
        [(" ", " "), ("[", "]"), ("", ","), ("", line), ("", " x"), ("\ufeff", ""), (deep, "")]
    )
    return before + line + after


_TEXTS: dict[str, Callable[[Random, str], str]] = {"a key twice": _key_twice, "something around": _around}
_KINDS = [*[None] * 12, *BYTES, *_ROWS, *_ROWS, *_ROWS, *_TEXTS]


def _line(source: Random) -> tuple[bytes, bool]:
    """Make a line, and tell whether it is a good row as it was made."""
    row, kind = _row(source), source.choice(_KINDS)
    if kind in _ROWS:
        _ROWS[kind](source, row)
    line = json.dumps(row, ensure_ascii=source.random() < 0.5).encode("utf-8", "surrogatepass")
    if kind in _TEXTS:
        line = _TEXTS[kind](source, line.decode("utf-8", "surrogatepass")).encode("utf-8", "surrogatepass")
    if kind in BYTES:
        line = BYTES[kind](source, line)
    return line, kind is None


def make_mutant(source: Random) -> Mutant:
    """Make a file; its details are the lines that were left as they were made, and a number between 0 and 1."""
    content, good = bytearray(source.choice([b"", b"", b"\xef\xbb\xbf"])), set()
    for _ in range(ROWS_IN_A_FILE):
        if source.random() < 0.02:
            content += source.choice([b"\n", b"  \n", b"\r\n", b"\t\n"])
        line, is_good = _line(source)
        if is_good:
            good.add(content.count(b"\n") + 1)
        content += line + source.choice([b"\n", b"\n", b"\n", b"\r\n", b" \n"])
    end = source.choice([len(content), len(content) - 1])
    return Mutant("a file of rows", bytes(content[:end]), (frozenset(good), source.random()))
