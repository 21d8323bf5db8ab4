"""What is remembered is what was counted; anything else wrong with the file means counting again."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from chat_folders import CHATML
from encoded_rows import encoded_row
from kit.audit import length_cache
from kit.audit.length_cache import Length, LengthCache, TokenCounter
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.conversations import Conversation, Message, RowProblem
from kit.data.remarks import Mark

if TYPE_CHECKING:
    from pathlib import Path

    from chat_folders import ChatFolder

LENGTHS = [Length(12, 5, 1), Length(7, 0, 4)]


def _talk(answer: str = "tell", system: str = "") -> Conversation:
    turns = [Message("system", system)] if system else []
    return Conversation((*turns, Message("user", "ask"), Message("assistant", answer, is_answer=True)), 1)


def test_what_is_kept_comes_back_and_only_under_its_own_key(tmp_path: Path) -> None:
    cache = LengthCache(tmp_path / "deep" / "c", "tokenizer", 100)
    key = cache.key([b"one", b"two"])
    assert cache.get(key) is None
    cache.put(key, LENGTHS)
    assert LengthCache(tmp_path / "deep" / "c", "tokenizer", 100).get(key) == LENGTHS
    others = {
        cache.key([b"two", b"one"]),
        cache.key([b"onetwo"]),
        cache.key([b"one", b"tw", b"o"]),
        LengthCache(None, "other", 100).key([b"one", b"two"]),
        LengthCache(None, "tokenizer", 101).key([b"one", b"two"]),
    }
    assert len(others) == 5
    assert key not in others


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_broken_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c").write_bytes(content)
    cache = LengthCache(tmp_path / "c", "tokenizer", 100)
    cache.put(b"key", LENGTHS)
    assert LengthCache(tmp_path / "c", "tokenizer", 100).get(b"key") in (LENGTHS, None)
    cache = LengthCache(tmp_path / "c", "tokenizer", 100)
    assert cache.get(b"other") is None


@pytest.mark.parametrize("value", [b"", b"1234567", b"\0" * 8 + b"1", b"\2\0\0\0\0\0\0\0" + b"\1" * 24, "text", 7])
def test_a_broken_entry_is_counted_again(tmp_path: Path, value: object) -> None:
    cache = LengthCache(tmp_path / "c", "tokenizer", 100)
    cache.put(b"key", LENGTHS)
    with sqlite3.connect(tmp_path / "c") as database:
        database.execute("UPDATE lengths SET value = ?", (value,))
    assert cache.get(b"key") is None


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "c", tmp_path):
        cache = LengthCache(path, "tokenizer", 100)
        cache.put(b"key", LENGTHS)
        assert cache.get(b"key") is None


def test_it_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(length_cache, "LARGEST_BYTES", 20_000)
    cache = LengthCache(tmp_path / "c", "tokenizer", 100)
    for number in range(640):
        cache.put(b"%d" % number, LENGTHS)
    with sqlite3.connect(tmp_path / "c") as database:
        (rows,) = database.execute("SELECT COUNT(*) FROM lengths").fetchone()
    assert rows < 400
    assert cache.get(b"639") == LENGTHS


def test_measuring_agrees_with_encoding_and_is_done_once(
    tmp_path: Path, byte_chat: ChatTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    talks = [_talk(), _talk("long " * 20), _talk("[/INST]"), _talk(system="be")]
    texts = [repr(talk.messages).encode() for talk in talks]
    first = TokenCounter(byte_chat, 50, tmp_path / "c").measure(talks, texts)
    for talk, length in zip(talks, first, strict=True):
        row = encoded_row(talk, byte_chat, 50)
        assert isinstance(length, Length)
        assert (length.tokens, length.trained) == (row.full_length, row.trainable_tokens)
    marks = [length.marks for length in first if isinstance(length, Length)]
    assert marks == [Mark.ENDS, Mark.ENDS, Mark.ENDS | Mark.TURN_MARKERS, Mark.ENDS | Mark.MERGED_SYSTEM]
    monkeypatch.setattr(length_cache, "encode_rows", lambda *_: pytest.fail("counted again"))
    assert TokenCounter(byte_chat, 50, tmp_path / "c").measure(talks, texts) == first


def test_another_template_or_length_counts_again(
    tmp_path: Path, byte_chat: ChatTokenizer, chat_folder: ChatFolder
) -> None:
    other = ChatTokenizer.load(str(chat_folder(CHATML)))
    talks, texts = [_talk("long " * 20)], [b"same"]
    found = [
        TokenCounter(tokenizer, length, tmp_path / "c").measure(talks, texts)
        for tokenizer, length in ((byte_chat, 50), (byte_chat, 60), (other, 50))
    ]
    assert found[0] != found[1]
    assert found[0] != found[2]


def test_a_refused_row_is_a_problem_each_time(tmp_path: Path, chat_folder: ChatFolder) -> None:
    picky = ChatTokenizer.load(str(chat_folder("{{ raise_exception('no') }}")))
    for _ in range(2):
        (problem,) = TokenCounter(picky, 50, tmp_path / "c").measure([_talk()], [b"text"])
        assert isinstance(problem, RowProblem)
