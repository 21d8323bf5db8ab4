"""Answers stream as whole letters, and what streamed is the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="needs the libraries: make setup")

import torch

from chat_folders import CHATML, MISTRAL
from kit.data.chat_tokenizer import ChatTokenizer
from kit.use.streaming import AnswerStream

if TYPE_CHECKING:
    from chat_folders import ChatFolder


@pytest.fixture(scope="module", params=["bytes", "legacy", "metaspace"])
def chat(request: Any, chat_folder: ChatFolder) -> ChatTokenizer:
    template = CHATML if request.param == "bytes" else MISTRAL
    return ChatTokenizer.load(str(chat_folder(template, request.param)))


def stream(chat: ChatTokenizer, ids: list[int]) -> list[str]:
    pieces: list[str] = []
    answer = AnswerStream(chat, pieces.append)
    answer.put(torch.tensor([[5, 6, 7]]))
    for token in ids:
        answer.put(torch.tensor([token]))
    answer.end()
    assert "".join(pieces) == answer.text
    assert answer.tokens == len(ids)
    return pieces


@settings(max_examples=60)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20))
def test_the_pieces_are_the_answer_and_none_is_half_a_letter(chat: ChatTokenizer, text: str) -> None:
    ids = chat.tokenizer.encode(text, add_special_tokens=False).ids
    pieces = stream(chat, ids)
    assert "".join(pieces) == chat.decode(ids).lstrip()
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_a_letter_of_several_tokens_comes_at_once(byte_chat: ChatTokenizer) -> None:
    assert stream(byte_chat, byte_chat.encode("a🦙é")[0]) == ["a", "🦙", "é"]


def test_what_was_cut_within_a_letter_is_shown_at_the_end(byte_chat: ChatTokenizer) -> None:
    assert stream(byte_chat, byte_chat.encode("a🦙")[0][:-1]) == ["a", "\ufffd"]


def test_the_end_token_and_blanks_in_front_are_not_shown(byte_chat: ChatTokenizer) -> None:
    assert stream(byte_chat, [*byte_chat.encode(" \n b c")[0], byte_chat.eos_token_id]) == ["b", " ", "c"]
