"""What is done with each row by itself."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.data.conversations import RowProblem
from kit.data.shapes import Reading, shape_row
from kit.intake import turns
from kit.intake.turns import normalised
from kit.intake.work import RowPipeline, Worker

if TYPE_CHECKING:
    from kit.data.chat_tokenizer import ChatTokenizer


def _line(number: int, **more: Any) -> tuple[int, bytes]:
    return number, json.dumps({"prompt": f"ask {number}", "completion": "tell", **more}).encode()


def test_a_worker_travels_and_does_the_same(byte_chat: ChatTokenizer) -> None:
    worker = Worker(RowPipeline(Reading({"user": "prompt", "assistant": "completion"}), byte_chat, 100, near=True))
    chunk = (0, [_line(1), (2, b"{"), RowProblem(3, "was long", "shorten it"), _line(4)])
    here, there = worker(chunk), pickle.loads(pickle.dumps(worker))(chunk)  # noqa: S301 - our own
    assert here == there
    assert [row.line for row in here.rows] == [1, 4]
    assert [problem.line for problem in here.problems] == [2, 3]


def test_rows_that_differ_in_form_only_are_loosely_the_same() -> None:
    worker = Worker(RowPipeline())
    forms = [("Stra\u00dfe  a", "Cafe\u0301"), ("strasse\na ", "caf\u00e9"), ("strasse b", "caf\u00e9")]
    batch = worker((0, [(at, {"prompt": user, "completion": answer}) for at, (user, answer) in enumerate(forms, 1)]))
    assert len({row.exact for row in batch.rows}) == 3
    assert len({row.loose for row in batch.rows}) == 2


def _talk(*texts: str, **more: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)],
        **more,
    }


def test_each_answer_becomes_a_row_that_reads_back_as_it_was_made(byte_chat: ChatTokenizer) -> None:
    job = RowPipeline(tokenizer=byte_chat, max_seq_length=100, split_turns=True)
    rows = [_talk("a", "b", "c", "d", "e", extra=1), _talk("a", "b"), {"prompt": "x", "completion": "y"}]
    batch = Worker(job)((0, list(enumerate(rows, start=1))))
    assert [(row.line, json.loads(row.text)) for row in batch.rows] == [
        (1, {"prompt": _talk("a")["messages"], "completion": [{"role": "assistant", "content": "b"}]}),
        (1, {"prompt": _talk("a", "b", "c")["messages"], "completion": [{"role": "assistant", "content": "d"}]}),
        (2, _talk("a", "b")),
        (3, _talk("x", "y")),
    ]
    assert batch.added == 1
    assert (batch.shapes["messages"], batch.unused["extra"]) == (2, 1)
    for row in batch.rows:
        again = shape_row(json.loads(row.text)).messages
        assert [message.is_answer for message in again] == [False] * (len(again) - 1) + [True]
    assert batch.rows[0].group == batch.rows[1].group != batch.rows[2].group


def _written(*rows: dict[str, Any], **job: Any) -> list[dict[str, Any]]:
    batch = Worker(RowPipeline(**job))((0, list(enumerate(rows, start=1))))
    assert not batch.problems
    assert len({row.exact for row in batch.rows}) == len(batch.rows)
    return [json.loads(row.text) for row in batch.rows]


def test_masks_are_written_so_that_they_read_back_and_make_other_rows() -> None:
    plain = _talk("a", "b", "c", "d", "e", "f")["messages"]
    rows = [{"messages": plain, "loss_mask": mask} for mask in ([0, 1] * 3, [0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 1])]
    written = _written(*rows)
    assert [shape_row(row).messages for row in written] == [shape_row(row).messages for row in rows]
    assert written == [
        {"messages": plain},
        {"prompt": plain[:3], "completion": [*plain[3:5], {**plain[5], "weight": 0}]},
        {"messages": [*plain[:3], {**plain[3], "weight": 0}, *plain[4:]]},
    ]
    assert _written(rows[1], rows[2], split_turns=True) == [
        {"prompt": plain[:3], "completion": plain[3:4]},
        {"prompt": plain[:1], "completion": plain[1:2]},
        {"prompt": plain[:5], "completion": plain[5:]},
    ]


def test_thoughts_are_written_where_no_template_is_known_and_make_other_rows() -> None:
    rows = [_talk("a", "b"), _talk("a", "b")]
    rows[1]["messages"][1]["reasoning_content"] = "hm"
    assert _written(*rows) == rows
    assert len({row.loose for row in Worker(RowPipeline())((0, list(enumerate(rows, start=1)))).rows}) == 2


@pytest.mark.parametrize(("name", "most"), [("_MOST_CHARACTERS", 100), ("_MOST_ANSWERS", 3)])
def test_a_row_that_would_become_too_many_is_a_problem(name: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, name, most)
    talk = [{"role": role, "content": "a" * 10} for role in ("user", "assistant")]
    rows = [(line, {"messages": talk * times}) for line, times in ((1, 2), (2, 5))]
    batch = Worker(RowPipeline(split_turns=True))((0, rows))
    assert len(batch.rows) == 2
    (problem,) = batch.problems
    allowed = f"{turns._MOST_ANSWERS} rows and {turns._MOST_CHARACTERS:,} characters are allowed"
    assert problem.message == f"would become 5 rows of 300 characters in all; {allowed}"


def test_a_group_of_the_persons_own_is_kept_and_a_secret_counted_once_when_turns_are_split() -> None:
    key = "AKIAIOSFODNN7EXAMPLE"  # of a public example
    row = _talk(f"is {key} a key", "b", "c", "d", doc="one")
    plain, split = (Worker(RowPipeline(group="doc", split_turns=on))((0, [(1, row)])) for on in (False, True))
    assert {one.group for one in split.rows} == {one.group for one in plain.rows}
    assert len(plain.secrets) == len(split.secrets) == 1


def test_the_answers_of_one_row_are_judged_each_for_itself(byte_chat: ChatTokenizer) -> None:
    job = RowPipeline(tokenizer=byte_chat, max_seq_length=40, split_turns=True)
    batch = Worker(job)((0, [(1, _talk("a", "b", "c" * 60, "d"))]))
    assert [json.loads(row.text)["completion"][0]["content"] for row in batch.rows] == ["b"]
    assert [problem.message for problem in batch.problems] == [
        "has no trainable tokens: the answer lies beyond 40 tokens"
    ]


@pytest.mark.parametrize("value", [None, [], {"a": 1}])
def test_a_row_without_its_group_or_label_is_a_problem(value: Any) -> None:
    for job in (RowPipeline(group="doc"), RowPipeline(label="doc")):
        batch = Worker(job)((0, [_line(1, doc=value), _line(2, doc=3), _line(3, doc="3")]))
        assert [problem.line for problem in batch.problems] == [1]
        assert batch.rows[0].group == batch.rows[1].group
        assert batch.rows[0].label == batch.rows[1].label


@given(st.text())
def test_normal_forms_are_final(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == normalised(normalised(once))
    assert "  " not in once
