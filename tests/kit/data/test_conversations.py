"""Every row becomes a conversation or a problem that names its line; nothing is dropped and nothing crashes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.cli.interpreter import PROJECT_ROOT
from kit.data.conversations import Conversation, Message, Problems, RowProblem, read_conversations

if TYPE_CHECKING:
    from kit.cli.findings import Finding

BAD_DATA = PROJECT_ROOT / "tests" / "fixtures" / "bad_data"
USER, ANSWER = {"role": "user", "content": "ask"}, {"role": "assistant", "content": "tell"}
ASK, TELL = Message("user", "ask"), Message("assistant", "tell", is_answer=True)


def _read(content: bytes) -> list[Conversation | RowProblem]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return list(read_conversations(Path(file.name)))


def _row(row: Any) -> Conversation | RowProblem:
    (item,) = _read(json.dumps(row).encode())
    return item


def _chat(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": [USER, ANSWER]}, (ASK, TELL)),
        ({"messages": [USER, ANSWER, USER, ANSWER]}, (ASK, TELL, ASK, TELL)),
        ({"messages": [{"role": "system", "content": "be"}, USER, ANSWER]}, (Message("system", "be"), ASK, TELL)),
        ({"messages": [USER, ANSWER, USER]}, (ASK, TELL, ASK)),
        ({"prompt": "ask", "completion": "tell"}, (ASK, TELL)),
        ({"prompt": [USER], "completion": [ANSWER]}, (ASK, TELL)),
        ({"prompt": [USER], "completion": "tell"}, (ASK, TELL)),
        ({"prompt": [USER, ANSWER, USER], "completion": [ANSWER]}, (ASK, Message("assistant", "tell"), ASK, TELL)),
        ({"prompt": [USER], "completion": [ANSWER, USER, ANSWER]}, (ASK, TELL, ASK, TELL)),
        ({"instruction": "ask", "output": "tell"}, (ASK, TELL)),
        ({"instruction": "ask", "input": "", "output": "tell"}, (ASK, TELL)),
        ({"instruction": "ask", "input": None, "output": "tell"}, (ASK, TELL)),
        ({"instruction": "ask", "input": "this", "output": "tell"}, (Message("user", "ask\n\nthis"), TELL)),
        ({"messages": [USER, ANSWER], "prompt": "ask", "id": 7, "source": None, "tools": None}, (ASK, TELL)),
        ({"messages": [USER, {**ANSWER, "tool_calls": None, "weight": 1}]}, (ASK, TELL)),
    ],
)
def test_each_shape_is_recognised(row: dict[str, Any], messages: tuple[Message, ...]) -> None:
    assert _row(row) == Conversation(messages, 1)


@pytest.mark.parametrize(
    "text", ["שלום \u200f!", "\u202eright to left", "naïve 🦙 \U0001fae8", "a\u2028b\x85c", "x" * 3_000_000, " kept "]
)
def test_any_text_is_kept_letter_for_letter(text: str) -> None:
    row = _chat(("user", text), ("assistant", text))
    for raw in (json.dumps(row), json.dumps(row, ensure_ascii=False)):
        (item,) = _read(raw.encode())
        assert isinstance(item, Conversation)
        assert [message.content for message in item.messages] == [text, text]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], "is a list, not a JSON object"),
        ("text", "is text, not a JSON object"),
        (3, "is a number, not a JSON object"),
        (None, "is null, not a JSON object"),
        ({}, "has none of the known shapes (found: nothing)"),
        ({"dialog": []}, "has none of the known shapes (found: 'dialog')"),
        ({"messages": []}, "has messages that is an empty list"),
        ({"messages": "hi"}, "has messages that is text"),
        ({"messages": None}, "has messages that is null"),
        ({"messages": ["hi"]}, "has a turn in messages that is text"),
        ({"messages": [{"content": "a"}]}, "has no role"),
        ({"messages": [{"role": 3, "content": "a"}]}, "has role that is a number, not text"),
        ({"messages": [{"role": "human", "content": "a"}]}, "has the role 'human' in messages"),
        ({"messages": [USER, {"role": "assistant"}]}, "has no content"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "has no content"),
        ({"messages": [USER, {"role": "assistant", "content": 42}]}, "has content that is a number, not text"),
        ({"messages": [USER, {"role": "assistant", "content": True}]}, "has content that is true or false, not text"),
        ({"messages": [USER, {"role": "assistant", "content": [{"type": "text"}]}]}, "has content that is a list"),
        ({"messages": [ANSWER]}, "has turns out of order"),
        ({"messages": [USER, USER, ANSWER]}, "has turns out of order"),
        ({"messages": [USER, ANSWER, ANSWER]}, "has turns out of order"),
        ({"messages": [USER, {"role": "system", "content": "late"}, ANSWER]}, "has a system message that is not first"),
        ({"messages": [USER]}, "has no assistant turn"),
        (_chat(("user", ""), ("assistant", "b")), "has an empty user turn"),
        (_chat(("user", "a"), ("assistant", " \t\n\u00a0")), "has an empty assistant turn"),
        (_chat(("user", "a"), ("assistant", "\u200f\u200b")), "has an empty assistant turn"),
        (_chat(("system", " "), ("user", "a"), ("assistant", "b")), "has an empty system turn"),
        ({"prompt": "a"}, "has no completion"),
        ({"completion": "b"}, "has no prompt"),
        ({"prompt": "a", "completion": 5}, "has completion that is a number, not text"),
        ({"prompt": "a", "completion": [ANSWER]}, "has completion that is a list, not text"),
        ({"prompt": [], "completion": "b"}, "has prompt that is an empty list"),
        ({"prompt": [USER], "completion": []}, "has completion that is an empty list"),
        ({"prompt": [USER], "completion": [USER]}, "has turns out of order"),
        ({"prompt": [USER, ANSWER], "completion": "b"}, "has turns out of order"),
        ({"instruction": "a"}, "has no output"),
        ({"output": "b"}, "has no instruction"),
        ({"instruction": "a", "input": 3, "output": "b"}, "has input that is a number, not text"),
    ],
)
def test_each_way_to_be_wrong_is_named(row: Any, message: str) -> None:
    item = _row(row)
    assert isinstance(item, RowProblem)
    assert item.message.startswith(message)
    assert item.fix


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ANSWER], "tools": [{"name": "search"}]},
        {"instruction": "a", "output": "b", "history": [["x", "y"]]},
        {"messages": [USER, {**ANSWER, "tool_calls": [{"id": "1"}]}]},
        {"messages": [USER, {**ANSWER, "mood": "sad"}]},
    ],
)
def test_what_would_be_lost_is_refused(row: dict[str, Any]) -> None:
    item = _row(row)
    assert isinstance(item, RowProblem)
    assert "would be lost" in item.message


FILES = {
    "latin1.jsonl": (2, "is not UTF-8"),
    "lone_surrogate.jsonl": (2, "has half a character (a lone surrogate) in content"),
    "archive.jsonl": (1, "contains NUL bytes"),
    "mark_in_the_middle.jsonl": (2, "is not valid JSON"),
    "mixed_formats.jsonl": (2, "is not valid JSON"),
    "numbers_for_strings.jsonl": (2, "has prompt that is a number, not text"),
    "only_marks_of_direction.jsonl": (2, "has an empty assistant turn"),
    "plain_text.jsonl": (1, "is plain text"),
    "tool_turn.jsonl": (2, "has 'observation' turns in conversations: tools are not supported"),
    "wrong_roles.jsonl": (2, "has the role 'human' in messages"),
    "nested_too_deep.jsonl": (2, "is not valid JSON (nested too deep"),
    "nul_bytes.jsonl": (2, "contains NUL bytes"),
    "number_too_long.jsonl": (2, "is not valid JSON (nested too deeply, or a number too long)"),
    "old_mac_line_ends.jsonl": (1, "is not valid JSON (Extra data)"),
    "one_array.jsonl": (1, "is a list, not a JSON object"),
    "pretty_printed.jsonl": (1, "is not valid JSON"),
    "truncated.jsonl": (2, "is not valid JSON"),
    "utf16.jsonl": (1, "contains NUL bytes, as UTF-16 does"),
    "utf16_without_mark.jsonl": (1, "contains NUL bytes, as UTF-16 does"),
}


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_broken_file_is_named_with_its_line(name: str) -> None:
    line, message = FILES[name]
    items = list(read_conversations(BAD_DATA / name))
    problem = next(item for item in items if isinstance(item, RowProblem))
    assert problem.line == line
    assert problem.message.startswith(message)
    assert all(isinstance(item, Conversation) for item in items[: line - 1])


def test_every_broken_file_is_expected_to_fail() -> None:
    assert {path.name for path in BAD_DATA.rglob("*.jsonl")} == {*FILES, "only_blank_lines.jsonl", "empty.jsonl"}


def test_a_file_of_blank_lines_has_no_rows() -> None:
    assert list(read_conversations(BAD_DATA / "only_blank_lines.jsonl")) == []
    assert _read(b"") == []
    assert _read(b"\xef\xbb\xbf") == []


def test_a_byte_order_mark_and_windows_line_ends_are_read_over() -> None:
    raw = json.dumps({"prompt": "ask", "completion": "tell"}).encode()
    assert _read(b"\xef\xbb\xbf" + raw + b"\r\n\r\n" + raw) == [
        Conversation((ASK, TELL), 1),
        Conversation((ASK, TELL), 3),
    ]


def test_a_byte_order_mark_in_the_middle_is_a_problem() -> None:
    raw = json.dumps({"prompt": "ask", "completion": "tell"}).encode()
    assert isinstance(_read(raw + b"\n\xef\xbb\xbf" + raw)[1], RowProblem)


def test_names_out_of_the_data_can_be_shown_on_any_terminal() -> None:
    for row in (
        b'{"\\ud83e\\u202e": 1}',
        b'{"messages": [{"role": "\\u001b[31m' + b"x" * 9999 + b'", "content": "a"}]}',
    ):
        (item,) = _read(row)
        assert isinstance(item, RowProblem)
        assert item.message.isprintable()
        assert len(item.message) < 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "content", "prompt", "completion", "instruction", "output", "input"]),
            inner | st.sampled_from(["user", "assistant", "system"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)
LINES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    JSON.map(lambda value: json.dumps(value).encode()),
)


@given(st.lists(LINES, max_size=6))
def test_any_bytes_become_conversations_or_problems_and_no_row_is_lost(lines: list[bytes]) -> None:
    content = b"\n".join(lines)
    items = _read(content)
    assert all(isinstance(item, Conversation | RowProblem) for item in items)
    written = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    assert [item.line for item in items] == [number for number, line in enumerate(written, 1) if line.strip()]
    for item in items:
        if isinstance(item, Conversation):
            assert any(message.is_answer for message in item.messages)


def _findings(problems: list[RowProblem]) -> list[Finding]:
    counted = Problems()
    for problem in problems:
        counted.add(problem)
    return counted.findings("rows.jsonl")


def test_problems_of_one_kind_are_one_finding() -> None:
    problems = [RowProblem(line, "is odd", "fix it") for line in range(1, 13)] + [RowProblem(5, "is new", "drop it")]
    many, one = _findings(problems)
    assert many.message == "each of 12 rows (lines 1, 2, 3, 4, 5, 6, 7, 8, …) is odd"
    assert (many.where, many.fix, many.severity) == ("rows.jsonl:1", "fix it", "error")
    assert one.message == "the row at line 5 is new"


def test_a_new_problem_in_every_row_does_not_become_a_finding_each() -> None:
    findings = _findings([RowProblem(line, f"is odd: {line}", "fix it") for line in range(1, 1001)])
    assert len(findings) == 13
    assert findings[-1].message.startswith("each of 988 rows (lines 13, 14,")


@pytest.mark.parametrize(
    "line",
    [
        b'{"prompt": "ask", "prompt": "other", "completion": "tell"}',
        b'{"messages": [{"role": "user", "role": "user", "content": "ask"}, {"role": "assistant", "content": "tell"}]}',
        b'{"messages": "[{\\"role\\": \\"user\\", \\"role\\": \\"user\\", \\"content\\": \\"ask\\"}]"}',
    ],
)
def test_of_two_values_under_one_key_none_is_chosen_in_silence(line: bytes) -> None:
    (problem,) = _read(line)
    assert isinstance(problem, RowProblem)
    assert " twice in one object" in problem.message
