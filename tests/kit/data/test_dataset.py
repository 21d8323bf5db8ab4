"""A data file: every row is trained on or named with its line, and the file's quirks are said."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from chat_folders import CHATML, MISTRAL, TIGHT
from encoded_rows import encoded_row
from kit.cli.interpreter import PROJECT_ROOT
from kit.data import dataset
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.conversations import read_conversations
from kit.data.dataset import EncodedFile, load_file
from kit.data.encoding import IGNORE_INDEX
from kit.data.remarks import add_names, names_of
from kit.demo.task import TRAIN_ROWS, VALIDATION_WORDS
from kit.files.digest import file_sha256

if TYPE_CHECKING:
    from pathlib import Path

    from chat_folders import ChatFolder
    from kit.cli.findings import Finding


def _row(user: str = "ask", answer: str = "tell", system: str = "") -> dict[str, Any]:
    turns = [("system", system)] if system else []
    turns += [("user", user), ("assistant", answer)]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def _load(folder: Path, rows: list[Any], chat: ChatTokenizer, length: int = 1000) -> EncodedFile:
    path = folder / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return load_file(path, chat, length)


def _finding(file: EncodedFile, id: str) -> Finding:  # noqa: A002 - the field's own name
    (finding,) = [finding for finding in file.findings if finding.id == id]
    return finding


def test_the_sample_data_is_fine(byte_chat: ChatTokenizer) -> None:
    for name, rows in (("train", TRAIN_ROWS), ("val", len(VALIDATION_WORDS))):
        file = load_file(PROJECT_ROOT / "data" / "sample" / f"{name}.jsonl", byte_chat, 64)
        assert [finding.severity for finding in file.findings] == ["ok"]
        assert len(file.rows) == rows


def test_rows_are_what_each_is_alone_in_the_files_order(
    tmp_path: Path, byte_chat: ChatTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_ROWS_AT_ONCE", 3)
    file = _load(tmp_path, [_row(f"ask {number}", "tell" * number) for number in range(1, 8)], byte_chat, 40)
    alone = [encoded_row(item, byte_chat, 40) for item in read_conversations(file.path)]  # type: ignore[arg-type]
    assert list(file.rows) == alone
    assert [row.line for row in file.rows] == [1, 2, 3, 4, 5, 6, 7]


def test_tokens_are_counted(tmp_path: Path, byte_chat: ChatTokenizer) -> None:
    file = _load(tmp_path, [_row(), _row(answer="told you")], byte_chat)
    assert file.rows.tokens == sum(len(row.input_ids) for row in file.rows)
    assert file.rows.trainable_tokens == len(" tell") + 1 + len(" told you") + 1
    assert _finding(file, "data.rows").message.startswith(f"2 rows, {file.rows.tokens} tokens, 16 of them trainable")


def test_every_row_is_kept_or_named(tmp_path: Path, byte_chat: ChatTokenizer) -> None:
    rows = [_row(), "{", _row(user="long " * 20), "", {"text": "a"}, _row(answer="x" * 90)]
    file = _load(tmp_path, rows, byte_chat, 60)
    assert [row.line for row in file.rows] == [1, 6]
    errors = {finding.where.rpartition(":")[2]: finding.id for finding in file.findings if finding.severity == "error"}
    assert errors == {"2": "data.row", "3": "data.no_loss", "5": "data.row"}


def test_an_answer_beyond_the_length_is_an_error_with_its_line(tmp_path: Path, byte_chat: ChatTokenizer) -> None:
    file = _load(tmp_path, [_row(), _row(user="a" * 100)], byte_chat, 50)
    finding = _finding(file, "data.no_loss")
    assert finding.severity == "error"
    assert finding.where == f"{file.path}:2"
    assert finding.message.startswith("the row at line 2 has no trainable tokens: the answer lies beyond 50 tokens")


def test_a_row_cut_in_its_answer_is_kept_and_named(tmp_path: Path, byte_chat: ChatTokenizer) -> None:
    file = _load(tmp_path, [_row(), _row(answer="a" * 100)], byte_chat, 50)
    finding = _finding(file, "data.truncated")
    assert finding.severity == "warning"
    assert finding.where == f"{file.path}:2"
    assert "the row at line 2 exceeds 50 tokens" in finding.message
    cut = file.rows[1]
    assert len(cut.input_ids) == 50 < cut.full_length
    assert cut.labels[-1] == cut.input_ids[-1] != byte_chat.eos_token_id


def test_a_row_that_exactly_fits_is_not_cut(tmp_path: Path, byte_chat: ChatTokenizer) -> None:
    length = _load(tmp_path, [_row()], byte_chat).rows.tokens
    file = _load(tmp_path, [_row()], byte_chat, length)
    assert [finding.id for finding in file.findings] == ["data.rows"]


def test_merged_system_messages_are_said_with_their_lines(tmp_path: Path, byte_chat: ChatTokenizer) -> None:
    file = _load(tmp_path, [_row(), _row(system="be brief")], byte_chat)
    assert _finding(file, "data.system_merged").where == f"{file.path}:2"
    assert "be brief\n\nask" in byte_chat.decode(file.rows[1].input_ids)


def test_carried_system_messages_need_no_remark(tmp_path: Path, chat_folder: ChatFolder) -> None:
    file = _load(tmp_path, [_row(system="be brief")], ChatTokenizer.load(str(chat_folder(CHATML))))
    assert [finding.id for finding in file.findings] == ["data.rows"]


def test_control_tokens_in_the_text_need_no_remark_and_the_templates_own_marks_do(
    tmp_path: Path, byte_chat: ChatTokenizer
) -> None:
    file = _load(tmp_path, [_row(), _row(answer="tell</s>"), _row(user="[/INST]")], byte_chat)
    finding = _finding(file, "data.turn_markers")
    assert (finding.severity, finding.where) == ("warning", f"{file.path}:3")
    assert len([one for one in file.findings if one.severity != "ok"]) == 1


def test_rows_that_are_cut_or_changed_are_counted_with_their_lines(tmp_path: Path, chat_folder: ChatFolder) -> None:
    template = TIGHT.replace("{{ message['content'] + eos", "{{ message['content'].split('#')[0] | trim + eos")
    rows = [_row(), _row(answer="{"), _row(answer=" blank"), _row(answer="told#not"), _row(answer="{}")]
    file = _load(tmp_path, rows, ChatTokenizer.load(str(chat_folder(template, "joined"))))
    said = {finding.id: finding for finding in file.findings}
    assert said["data.cut_at_answer"].message.startswith(
        "each of 2 rows (lines 2, 5): the answer would change the prompt's last tokens"
    )
    assert said["data.answer_trimmed"].message.startswith(
        "the row at line 3 has leading or trailing whitespace in an answer"
    )
    assert said["data.answer_changed"].message.startswith(
        "the row at line 4 has an answer that the chat template partly drops"
    )
    assert {said[f"data.{name}"].severity for name in ("cut_at_answer", "answer_trimmed", "answer_changed")} == {
        "warning"
    }
    assert said["data.answer_changed"].where == f"{file.path}:4"


def test_a_template_that_never_ends_an_answer_is_a_warning(tmp_path: Path, chat_folder: ChatFolder) -> None:
    chat = ChatTokenizer.load(str(chat_folder(MISTRAL.replace(" + eos_token", ""))))
    assert _finding(_load(tmp_path, [_row()], chat), "data.no_end").severity == "warning"


def test_a_row_the_template_refuses_is_named(tmp_path: Path, chat_folder: ChatFolder) -> None:
    picky = "{% if messages[0]['content'] == 'no' %}{{ raise_exception('not that') }}{% endif %}" + MISTRAL
    file = _load(tmp_path, [_row(), _row(user="no")], ChatTokenizer.load(str(chat_folder(picky))))
    finding = _finding(file, "data.row")
    assert finding.message == "the row at line 2 is rejected by the base model's chat template (not that)"
    assert len(file.rows) == 1


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_rows_is_an_error(tmp_path: Path, byte_chat: ChatTokenizer, content: str) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text(content, encoding="utf-8")
    (finding,) = load_file(path, byte_chat, 64).findings
    assert (finding.id, finding.severity) == ("data.empty", "error")


@pytest.mark.parametrize(
    "content",
    [
        b'[\n{"prompt": "a", "completion": "b"}\n]\n',
        "question,answer\nwho,über".encode(),
        gzip.compress(bytes(range(256))),
        b"PAR1\x15\x00\n\n\xff\n",
    ],
    ids=["a list", "a table", "packed", "Parquet"],
)
def test_another_format_is_named_with_the_command_that_reads_it(
    content: bytes, tmp_path: Path, byte_chat: ChatTokenizer
) -> None:
    path = tmp_path / "my rows"
    path.write_bytes(content)
    found, *others = load_file(path, byte_chat, 1000, processes=1).findings
    assert (found.id, found.severity) == ("data.format", "error")
    assert found.fix.startswith(f"make data INPUT='{path}'")
    assert not any("UTF" in other.message for other in others)


def test_a_file_in_utf_16_is_no_other_format(tmp_path: Path, byte_chat: ChatTokenizer) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-16")
    (found,) = load_file(path, byte_chat, 1000, processes=1).findings
    assert "UTF-16" in found.message


def test_a_mark_in_front_of_the_first_row_is_no_other_format(tmp_path: Path, byte_chat: ChatTokenizer) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a", "completion": "b"}\nbroken\n')
    assert "data.format" not in {finding.id for finding in load_file(path, byte_chat, 1000, processes=1).findings}


def test_a_row_of_many_tokens_is_read(tmp_path: Path, byte_chat: ChatTokenizer) -> None:
    file = _load(tmp_path, [_row(answer="a" * 200_000)], byte_chat, 100)
    assert file.rows[0].full_length > 200_000
    assert len(file.rows[0].labels) == 100
    assert IGNORE_INDEX in file.rows[0].labels


def test_the_hash_is_of_the_files_bytes(tmp_path: Path, byte_chat: ChatTokenizer) -> None:
    file = _load(tmp_path, [_row()], byte_chat)
    assert file.sha256 == file_sha256(file.path) == hashlib.sha256(file.path.read_bytes()).hexdigest()


def test_a_file_that_cannot_be_read_raises(tmp_path: Path, byte_chat: ChatTokenizer) -> None:
    with pytest.raises(OSError, match="No such file"):
        load_file(tmp_path / "none.jsonl", byte_chat, 64)


def test_what_is_left_behind_is_named_in_bounded_memory(tmp_path: Path, byte_chat: ChatTokenizer) -> None:
    rows = [{**_row(), "source": "here", "a\u001b[2J": 1}, {**_row(), "source": "there"}]
    finding = _finding(_load(tmp_path, rows, byte_chat), "data.columns")
    assert finding.severity == "warning"
    assert finding.message == "ignored keys (rows with each): source (2), 'a\\x1b[2J' (1)"
    names: Counter[str] = Counter()
    add_names(names, {f"{number} {'x' * 9999}": 1 for number in range(2000)})
    assert (len(names), names["others"]) == (1001, 1000)
    assert max(map(len, names)) < 200
    assert names_of(names).endswith("(1) and 989 more")


@pytest.mark.parametrize("in_place", [False, True])
def test_the_hash_is_that_of_the_rows_that_were_read(
    tmp_path: Path, byte_chat: ChatTokenizer, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    path = tmp_path / "rows.jsonl"
    real = dataset.read_lines

    def meanwhile(file: Any) -> Any:
        yield from real(file)
        other = path if in_place else tmp_path / "other.jsonl"
        other.write_text(json.dumps(_row("another")) + "\n", encoding="utf-8")
        other.replace(path)

    monkeypatch.setattr(dataset, "read_lines", meanwhile)
    file = _load(tmp_path, [_row()], byte_chat)
    if in_place:
        assert _finding(file, "data.changed").severity == "error"
    else:
        assert file.sha256 == hashlib.sha256(json.dumps(_row()).encode() + b"\n").hexdigest()
