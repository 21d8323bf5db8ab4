"""The shapes people's rows come in, and what is refused instead of losing some of it."""

from __future__ import annotations

from typing import Any

import pytest

from kit.data.row_values import RowError
from kit.data.shapes import Reading, shape_row
from kit.data.turns import Message

TURNS = '[{"role": "user", "content": "ask"}, {"role": "assistant", "content": "tell"}]'
ASK, TELL = Message("user", "ask"), Message("assistant", "tell", is_answer=True)
HUMAN, GPT = {"from": "human", "value": "ask"}, {"from": "gpt", "value": "tell"}
SYSTEM = Message("system", "be")
PAIR = (ASK, TELL)


@pytest.mark.parametrize(
    ("row", "messages", "shape"),
    [
        ({"conversations": [HUMAN, GPT]}, (ASK, TELL), "conversations"),
        ({"conversation": [HUMAN, GPT, HUMAN, GPT]}, (ASK, TELL, ASK, TELL), "conversation"),
        ({"conversations": [{"from": "system", "value": "be"}, HUMAN, GPT]}, (SYSTEM, ASK, TELL), "conversations"),
        ({"conversations": [{"from": "User", "value": "ask"}, {"from": "chatgpt", "value": "tell"}]}, PAIR, None),
        ({"conversations": [{"role": "human", "value": "ask"}, {"role": "model", "content": "tell"}]}, PAIR, None),
        ({"conversations": [{"role": "user", "content": "ask"}, {"from": "bing", "content": "tell"}]}, PAIR, None),
        ({"system": "be", "conversations": [HUMAN, GPT]}, (SYSTEM, ASK, TELL), None),
        ({"system": "be", "instruction": "ask", "output": "tell"}, (SYSTEM, ASK, TELL), "instruction/output"),
        ({"system": "", "prompt": "ask", "completion": "tell"}, (ASK, TELL), "prompt/completion"),
        ({"question": "ask", "answer": "tell"}, (ASK, TELL), "question/answer"),
        ({"question": "ask", "answer": "tell", "context": ""}, (ASK, TELL), "question/answer"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "sk"}]},
                          {"role": "assistant", "content": "tell"}]},
            (ASK, TELL), "messages",
        ),
        ({"messages": TURNS}, (ASK, TELL), None),
    ],
)  # fmt: skip
def test_each_shape_is_recognised(row: dict[str, Any], messages: tuple[Message, ...], shape: str | None) -> None:
    shaped = shape_row(row)
    assert shaped.messages == messages
    assert shape in (None, shaped.shape)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversations": [HUMAN, {"from": "function_call", "value": "{}"}, GPT]}, "tools are not supported"),
        ({"messages": [{"role": "tool", "content": "7"}]}, "tools are not supported"),
        ({"conversations": [{"from": "narrator", "value": "a"}]}, "has the role 'narrator'"),
        ({"conversations": [GPT, HUMAN, GPT]}, "turns out of order"),
        ({"question": "ask", "answer": "tell", "context": "long"}, "has context beside its question"),
        ({"text": "once upon a time"}, "is plain text, without an answer"),
        ({"chosen": "a", "rejected": "b"}, "has rejected in its row"),
        ({"chosen": "a"}, "has a preference"),
        ({"system": "be", "messages": [{"role": "system", "content": "b"}]}, "has a system column beside"),
        ({"messages": "[not json"}, "has messages that is text but not valid JSON"),
        ({"prompt": "a", "completion": b"\xff"}, "has completion that is binary, not text"),
        ({"prompt": "a", "completion": "b" * 8_000_000}, "has more than 8,000,000 characters in its turns"),
        ({"conversations": [HUMAN, GPT] * 501}, "has more than 1,000 turns"),
    ],
)
def test_each_way_to_lose_something_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError, match=message) as caught:
        shape_row(row)
    assert caught.value.fix


def test_columns_can_be_named() -> None:
    reading = Reading({"user": "Q", "assistant": "A 1", "system": "S"})
    assert shape_row({"Q": "ask", "A 1": "tell", "S": "be", "id": 7}, reading).messages == (SYSTEM, ASK, TELL)
    shaped = shape_row({"Q": "ask", "A 1": "tell", "S": None, "id": 7}, reading)
    assert shaped.messages == (ASK, TELL)
    assert shaped.unused == ("id",)
    assert shape_row(
        {"Q": "ask", "A 1": "tell", "system": "be"}, Reading({"user": "Q", "assistant": "A 1"})
    ).unused == ("system",)
    with pytest.raises(RowError, match=r"has no column 'A 1' \(found: 'Q'\)"):
        shape_row({"Q": "ask"}, reading)
    with pytest.raises(RowError, match=r"has no column 'sytem' \(found: 'Q', 'A', 'System'\)"):
        shape_row({"Q": "a", "A": "b", "System": "c"}, Reading({"user": "Q", "assistant": "A", "system": "sytem"}))
    assert shape_row({"Q": "a", "A": "b", "item": 1}, Reading({"user": "Q", "assistant": "A", "system": "system"}))
    with pytest.raises(RowError, match="has 'A 1' that is a number, not text"):
        shape_row({"Q": "ask", "A 1": 3}, reading)
    assert shape_row({"turns": [HUMAN, GPT]}, Reading({"messages": "turns"})).messages == (ASK, TELL)


def test_plain_text_is_the_answer_to_what_the_person_says() -> None:
    shaped = shape_row({"text": "tell"}, Reading(text_prompt="ask"))
    assert shaped.messages == (ASK, TELL)


def test_answers_in_front_are_left_out_only_when_asked() -> None:
    row = {"conversations": [{"from": "system", "value": "be"}, GPT, GPT, HUMAN, GPT]}
    shaped = shape_row(row, Reading(trim=True))
    assert (shaped.messages, shaped.trimmed) == ((SYSTEM, ASK, TELL), 2)
    with pytest.raises(RowError):
        shape_row({"conversations": [GPT]}, Reading(trim=True))


def test_what_is_left_behind_is_named() -> None:
    assert shape_row({"id": 1, "prompt": "ask", "completion": "tell", "source": "x"}).unused == ("id", "source")
