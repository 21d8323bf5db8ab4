"""Every key of a row, a turn or a part of one is used, reported or refused, and masks decide what carries loss."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.cli.command import call
from kit.commands import data, train, validate
from kit.data.conversations import Conversation, RowProblem, read_row
from kit.data.row_values import NOTHING, is_blank, shown_key
from kit.data.turn_keys import FLAGS, SPOKEN, THOUGHTS
from kit.data.turns import Message
from small_run import CONFIG, overrides

if TYPE_CHECKING:
    from pathlib import Path

USER, ANSWER = {"role": "user", "content": "ask"}, {"role": "assistant", "content": "tell"}
HUMAN, GPT = {"from": "human", "value": "ask"}, {"from": "gpt", "value": "tell"}


def _read(row: dict[str, Any]) -> Conversation | RowProblem:
    return read_row((1, json.dumps(row).encode("utf-8", "surrogatepass")))


def _talk(*more: dict[str, Any], **beside: Any) -> dict[str, Any]:
    """Two questions with their answers; each turn says something more."""
    turns = zip([USER, ANSWER, USER, ANSWER], more, strict=True)
    return {"messages": [{**turn, **said} for turn, said in turns], **beside}


def _learnt(row: dict[str, Any]) -> list[bool]:
    item = _read(row)
    assert isinstance(item, Conversation), item
    return [message.is_answer for message in item.messages]


@pytest.mark.parametrize("key", FLAGS)
@pytest.mark.parametrize("no", [0, False, 0.0])
def test_a_flag_of_an_answer_decides_whether_it_is_learnt(key: str, no: float) -> None:
    assert _learnt(_talk({}, {key: no}, {}, {})) == [False, False, False, True]
    assert _learnt(_talk({key: no}, {key: 1}, {key: no}, {key: no})) == [False, True, False, False]
    assert _learnt(_talk({}, {key: None}, {}, {})) == [False, True, False, True]


@pytest.mark.parametrize("key", [*FLAGS, "loss_mask"])
def test_a_list_beside_the_turns_is_a_flag_for_each(key: str) -> None:
    assert _learnt(_talk({}, {}, {}, {}, **{key: [0, 0, 0, 1]})) == [False, False, False, True]
    shared = {"system": "be", "conversations": [HUMAN, GPT, HUMAN, GPT], key: [False, True, False, False]}
    assert _learnt(shared) == [False, False, True, False, False]


def test_a_mask_in_a_prompt_and_its_completion() -> None:
    row = {"prompt": [USER, {**ANSWER, "train": False}, USER], "completion": [ANSWER, USER, {**ANSWER, "weight": 0}]}
    assert _learnt(row) == [False, False, False, True, False, False]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (_talk({}, {"weight": 0.5}, {}, {}), "has weight in its turn that is neither 0 nor 1"),
        (_talk({}, {"train": "no"}, {}, {}), "has train in its turn that is neither 0 nor 1"),
        (_talk({}, {"loss": [0]}, {}, {}), "has loss in its turn that is neither 0 nor 1"),
        (_talk({}, {"loss_mask": 0}, {}, {}), "has loss_mask in its turn, which programs read in different ways"),
        (_talk({}, {"masked": True}, {}, {}), "has masked in its turn, which programs read in different ways"),
        (_talk({"train": True}, {}, {}, {}), "has train set on a user turn"),
        (_talk({}, {"weight": 0, "train": True}, {}, {}), "has contradicting train and weight in a turn"),
        (_talk({}, {"weight": 0}, {}, {"weight": 0}), "has no answer to train on: weight excludes"),
        (_talk({}, {}, {}, {}, loss_mask=[0, 1, 0]), "has 3 values in loss_mask for 4 turns"),
        (_talk({}, {}, {}, {}, loss_mask=[1, 1, 0, 1]), "has loss_mask set on a user turn"),
        (_talk({}, {}, {}, {}, loss_mask=[0, 0.5, 0, 1]), "has loss_mask in its row that is neither 0 nor 1"),
        (_talk({}, {"train": True}, {}, {}, loss_mask=[0, 0, 0, 1]), "has contradicting train and loss_mask in a turn"),
        (_talk({}, {}, {}, {}, weight=0.5), "has weight in its row that is neither 0 nor 1"),
        (_talk({}, {}, {}, {}, train=False), "has train 0 or false"),
        (_talk({}, {}, {}, {}, masked=True), "has masked in its row, which programs read in different ways"),
        (_talk({}, {}, {}, {}, assistant_masks=[0, 1]), "has assistant_masks in its row, which programs read in"),
        ({"prompt": "ask", "completion": "tell", "completion_mask": [0, 1]}, "has completion_mask in its row, which"),
        ({"prompt": "ask", "completion": "tell", "loss_mask": [0, 1]}, "has loss_mask as a list"),
        ({"prompt": [USER, {**ANSWER, "train": 1}, USER], "completion": "b"}, "has train set on a turn of"),
    ],
)
def test_a_mask_that_cannot_be_done_is_refused(row: dict[str, Any], message: str) -> None:
    problem = _read(row)
    assert isinstance(problem, RowProblem), problem
    assert problem.message.startswith(message)
    assert problem.fix


def test_thoughts_are_carried_under_their_key() -> None:
    item = _read(_talk({}, {"thinking": "hm", "reasoning": " "}, {}, {"reasoning_content": "aha"}))
    assert isinstance(item, Conversation)
    assert item.messages[1::2] == (
        Message("assistant", "tell", is_answer=True, thoughts=(("thinking", "hm"),)),
        Message("assistant", "tell", is_answer=True, thoughts=(("reasoning_content", "aha"),)),
    )


@pytest.mark.parametrize(
    ("row", "message", "fix"),
    [
        (_talk({}, {"contents": "x"}, {}, {}), "has contents in its turn, which would be lost", "you mean content?"),
        (_talk({}, {"name": "Ann"}, {}, {}), "has name in its turn, which would be lost", "remove name"),
        (_talk({"thinking": "hm"}, {}, {}, {}), "has thinking in its user turn, which would be", "remove thinking"),
        (_talk({}, {"value": "b"}, {}, {}), "has value that differs from content", "keep one"),
        (_talk({}, {"from": "human"}, {}, {}), "has from that differs from role", "keep one"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "x"}}]}],
             "completion": "b"},
            "has cache_control in its part of a turn, which would be lost", "remove cache_control",
        ),
        ({"instruction": "a", "inputs": "c", "output": "b"}, "has inputs beside its turns", "did you mean input?"),
        ({"instruction": "a", "context": "c", "output": "b"}, "has context beside its question", "write context into"),
        (_talk({}, {}, {}, {}, Weights=[0, 1]), "has Weights beside its turns", "you mean weight?"),
        (_talk({}, {}, {}, {}, lossMasks=[0]), "has lossMasks beside its turns", "mean loss_mask?"),
        (_talk({}, {}, {}, {}, images=["a.png"]), "has images beside its turns", "ignore it explicitly"),
        (_talk({}, {}, {}, {}, kto_tag=False), "has kto_tag: false, which marks its answer as bad", "remove the row"),
        ({"prompt": "a", "completion": "b", "label": False}, "has label: false, which marks", "remove the row"),
        ({"messages": [USER, ANSWER], "system_prompt": "be"}, "has system_prompt beside its turns", "mean system?"),
        ({"question": "a", "answer": "b", "reasoning": "c"}, "has reasoning beside its turns", "--map user=question"),
        ({"message": [USER, ANSWER]}, "has none of the known shapes", "did you mean messages?"),
        ({"prompt": "a", "completions": "b"}, "has no completion", "rename completions to completion"),
        ({"messages": [USER, ANSWER], "chat_template_kwargs": {"x": 1}}, "has chat_template_kwargs in its", "remove"),
    ],
)  # fmt: skip
def test_what_would_be_lost_is_refused_with_what_may_be_meant(row: dict[str, Any], message: str, fix: str) -> None:
    problem = _read(row)
    assert isinstance(problem, RowProblem), problem
    assert problem.message.startswith(message)
    assert fix in problem.fix


def test_both_names_of_one_thing_may_agree() -> None:
    twice = {"from": "gpt", "role": "assistant", "content": "tell", "value": "tell"}
    assert _learnt({"conversations": [HUMAN, twice]}) == [False, True]


def test_what_only_tells_turns_apart_is_named() -> None:
    item = _read(_talk({"id": 1}, {"timestamp": 2}, {"id": 3}, {"id": None}, source="x"))
    assert isinstance(item, Conversation)
    assert item.unused == ("source", "id of a turn", "timestamp of a turn")


VALUES = st.sampled_from([*NOTHING, 0, 1, 0.5, True, False, "text", " ", [0, 0], [0, 1], {"a": 1}, "\ud800"])
KEYS = st.sampled_from(
    [*FLAGS, *THOUGHTS, *SPOKEN, "masked", "loss_mask", "id", "timestamp", "name", "tool_calls", "contents", "system",
     "input", "inputs", "context", "tools", "cache_control", "type", "history", "source", ""]
) | st.text(max_size=6).filter(lambda key: key not in {"text", "prompt", "output", "answer"})  # fmt: skip
MORE = st.dictionaries(KEYS, VALUES, max_size=2)
SHAPES = (
    {"messages": [USER, ANSWER]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "ask"}]}, ANSWER]},
    {"conversations": [HUMAN, GPT]},
    {"prompt": [USER], "completion": [ANSWER]},
    {"prompt": "ask", "completion": "tell"},
    {"instruction": "ask", "output": "tell"},
    {"question": "ask", "answer": "tell"},
)


def _objects(node: Any) -> list[dict[str, Any]]:
    inner = [one for value in (node.values() if isinstance(node, dict) else node) for one in _inside(value)]
    return [node, *inner] if isinstance(node, dict) else inner


def _inside(value: Any) -> list[dict[str, Any]]:
    return _objects(value) if isinstance(value, dict | list) else []


def _is_used(key: str, value: Any, item: Conversation) -> bool:
    """Tell whether a key that was put into a row, a turn or a part is in what was read of it, or named."""
    if key in item.unused or f"{key} of a turn" in item.unused:
        return True
    if key in (*FLAGS, "loss_mask"):
        return all(message.is_answer == (message.role == "assistant") for message in item.messages) and (
            value in (1, [0, 1]) or value == 0  # of a user turn
        )
    texts = [text for message in item.messages for text in (message.role, *message.texts)]
    return any(str(value) in text for text in texts) or (isinstance(value, str) and is_blank(value))


@settings(max_examples=500)
@given(st.sampled_from(SHAPES), st.lists(MORE, min_size=5, max_size=5))
def test_every_key_is_used_named_or_refused(shape: dict[str, Any], more: list[dict[str, Any]]) -> None:
    row = json.loads(json.dumps(shape))
    added: dict[str, list[Any]] = {}  # with the values that mean something
    for place, beside in zip(_objects(row), more, strict=False):
        for key, value in beside.items():
            if key not in place:
                place[key] = value
                added.setdefault(key, []).extend([value] if value not in NOTHING else [])
    item = _read(row)
    if isinstance(item, RowProblem):
        assert any(shown_key(key) in item.message for key in added), (row, item)
    else:
        assert all(_is_used(key, value, item) for key, values in added.items() for value in values), (row, item)


def test_all_three_commands_name_the_same_keys(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        _talk({}, {"train": False}, {}, {}, dataset="here"),
        _talk({}, {}, {}, {"mood": "sad"}),
        _talk({}, {}, {}, {}, loss_scale=2),
    ]
    path, run = tmp_path / "rows.jsonl", [str(CONFIG), *overrides(tiny_base, tmp_path / "run")]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    run += [f"data.train_file={path}", "data.val_file=null"]
    commands = (
        lambda: call(data, [str(path), "--model", str(tiny_base), "--audit"]),
        lambda: call(validate, [*run, "--no-probe"]),
        lambda: call(train, run),
    )
    for command in commands:
        assert command() == 1
        said = "".join(capsys.readouterr())
        for named in ("dataset (1)", "has mood in its turn", "has loss_scale in its row"):
            assert named in said
