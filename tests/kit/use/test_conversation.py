"""A conversation keeps what fits, says what it forgot, and survives being interrupted."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="needs the libraries: make setup")

import torch

from chat_folders import CHATML, MISTRAL, TIGHT
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.conversations import Conversation as DataConversation
from kit.data.conversations import Message
from kit.data.encoding import Encoded, encode_prompt, encode_rows
from kit.use.conversation import Conversation, PromptError, Sampling, reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat_folders import ChatFolder


def test_turns_follow_each_other_in_the_template(byte_chat: ChatTokenizer) -> None:
    talk = Conversation(byte_chat, 500)
    talk.add("a", "b")
    ids, room, forgotten = talk.prepare("c", 100)
    text = byte_chat.tokenizer.decode(ids, skip_special_tokens=False)
    assert text == "<s>[INST] a [/INST] b</s>[INST] c [/INST]"
    assert (room, forgotten) == (100, 0)


def test_a_system_message_stays_when_the_rest_is_forgotten(byte_chat: ChatTokenizer) -> None:
    talk = Conversation(byte_chat, 500, "be brief")
    talk.add("a", "b")
    talk.reset()
    ids, _, _ = talk.prepare("c", 10)
    assert "be brief\n\nc" in byte_chat.decode(ids)


def test_the_oldest_turns_are_forgotten_where_the_answer_would_not_fit(byte_chat: ChatTokenizer) -> None:
    talk = Conversation(byte_chat, 180)
    for letter in "abcd":
        talk.add(letter * 20, letter)
    ids, room, forgotten = talk.prepare("e", 60)
    assert forgotten == 4
    assert [turn.content for turn in talk.turns] == ["c" * 20, "c", "d" * 20, "d"]
    assert room == 60
    assert len(ids) + 60 <= 180


def test_a_question_that_leaves_little_room_gets_a_short_answer(byte_chat: ChatTokenizer) -> None:
    ids, room, _ = Conversation(byte_chat, 100).prepare("x" * 70, 512)
    assert len(ids) + room == 100
    assert room > 0


def test_a_question_longer_than_the_model_is_refused_with_both_lengths(byte_chat: ChatTokenizer) -> None:
    with pytest.raises(PromptError, match=r"31\d tokens, but the model's context is 100"):
        Conversation(byte_chat, 100).prepare("x" * 300, 10)


def test_a_template_that_refuses_is_a_sentence(byte_chat: ChatTokenizer) -> None:
    talk = Conversation(byte_chat, 100)
    talk.turns = [*talk.turns, Message("tool", "x")]
    with pytest.raises(PromptError, match="the conversation is rejected by the base model's chat template"):
        talk.prepare("a", 10)


def test_the_last_question_can_be_taken_back(byte_chat: ChatTokenizer) -> None:
    talk = Conversation(byte_chat, 100)
    assert talk.take_back() is None
    talk.add("a", "b")
    talk.add("c", "d")
    assert talk.take_back() == "c"
    assert [turn.content for turn in talk.turns] == ["a", "b"]


def test_greedy_says_nothing_about_drawing_and_drawing_says_everything() -> None:
    assert Sampling().arguments() == {"do_sample": False, "repetition_penalty": 1.0}
    drawn = Sampling(temperature=0.5, top_p=0.9, top_k=3).arguments()
    assert drawn == {"do_sample": True, "repetition_penalty": 1.0, "temperature": 0.5, "top_p": 0.9, "top_k": 3}


class _Loaded:
    """Says given tokens, one after the other; then does what it was told to do."""

    def __init__(self, tokenizer: ChatTokenizer, ids: list[int], ending: BaseException | None = None) -> None:
        self.tokenizer, self.ids, self.ending = tokenizer, ids, ending
        self.device = torch.device("cpu")
        self.asked: dict[str, Any] = {}
        self.spoke_with_adapter: bool | None = None

    @contextlib.contextmanager
    def active(self, *, adapter: bool) -> Iterator[Any]:
        self.spoke_with_adapter = adapter
        yield self

    def generate(self, *, streamer: Any, **asked: Any) -> Any:
        self.asked = asked
        streamer.put(asked["input_ids"])
        for token in self.ids:
            streamer.put(torch.tensor([token]))
        if self.ending:
            raise self.ending
        streamer.end()
        return torch.cat([asked["input_ids"], torch.tensor([self.ids])], dim=1)


def _reply(
    byte_chat: ChatTokenizer, text: str, *, ends: bool, ending: BaseException | None = None, end: int | None = None
) -> Any:
    ids = byte_chat.encode(text)[0] + [byte_chat.eos_token_id if end is None else end] * ends
    loaded: Any = _Loaded(byte_chat, ids, ending)
    talk = Conversation(byte_chat, 500)
    written: list[str] = []
    answer = reply(loaded, talk, "q", sampling=Sampling(max_new_tokens=9), write=written.append, adapter=False)
    return answer, talk, "".join(written), loaded


def test_an_answer_is_streamed_and_kept(byte_chat: ChatTokenizer) -> None:
    answer, talk, written, loaded = _reply(byte_chat, " yes", ends=True)
    assert (answer.text, answer.ending, answer.tokens, written) == ("yes", "end", 5, "yes")
    assert [(turn.role, turn.content) for turn in talk.turns] == [("user", "q"), ("assistant", "yes")]
    assert loaded.spoke_with_adapter is False
    assert (loaded.asked["max_new_tokens"], loaded.asked["do_sample"]) == (9, False)


def test_an_answer_that_was_cut_says_so(byte_chat: ChatTokenizer) -> None:
    assert _reply(byte_chat, "and so on", ends=False)[0].ending == "length"


def test_ctrl_c_keeps_what_was_said_so_far(byte_chat: ChatTokenizer) -> None:
    answer, talk, _, _ = _reply(byte_chat, "half an ans", ends=False, ending=KeyboardInterrupt())
    assert (answer.text, answer.ending) == ("half an ans", "stopped")
    assert talk.turns[-1].content == "half an ans"


@pytest.mark.parametrize(
    ("made", "kept", "shown"),
    [
        (" yes", "yes", "yes"),  # the blank is the template's
        ("  yes ", " yes ", "yes"),
        (" \nyes\n\n", "\nyes\n\n", "yes"),
        ("yes", "yes", "yes"),
    ],
)
def test_the_answer_is_kept_blank_for_blank_and_shown_without_its_ends(
    byte_chat: ChatTokenizer, made: str, kept: str, shown: str
) -> None:
    answer, talk, _, _ = _reply(byte_chat, made, ends=True)
    assert talk.turns[-1].content == kept
    assert answer.text == shown


@pytest.mark.parametrize("style", ["bytes", "legacy", "metaspace", "joined"])
@pytest.mark.parametrize("template", [MISTRAL, TIGHT, CHATML], ids=["mistral", "tight", "chatml"])
def test_a_conversation_is_asked_as_the_same_turns_are_evaluated(
    chat_folder: ChatFolder, template: str, style: str
) -> None:
    chat = ChatTokenizer.load(str(chat_folder(template, style)))
    turns = ["  the question\n", " {a answer", "and </s> again ", "[the\n", "last"]
    messages = [Message(("user", "assistant")[at % 2], text, bool(at % 2)) for at, text in enumerate(turns)]
    talk = Conversation(chat, 500)
    for at in (0, 2):
        prompt = talk.prepare(turns[at], 50)[0]
        row = encode_rows([DataConversation(tuple(messages[: at + 2]), 1)], chat)[0]
        assert isinstance(row, Encoded)
        assert row.ids[: len(prompt)] == prompt
        first, behind = row.answers[-1]
        loaded: Any = _Loaded(chat, row.ids[first:behind])  # what a model says that has learnt the row by heart
        reply(loaded, talk, turns[at], sampling=Sampling(), write=lambda _text: None, adapter=True)
        assert talk.turns[-1].content == turns[at + 1]
    assert talk.prepare(turns[4], 50)[0] == encode_prompt(messages, chat)


def test_each_token_that_ends_an_answer_ends_it(chat_folder: ChatFolder) -> None:
    folder = chat_folder(CHATML)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 40]}', encoding="utf-8")
    chat = ChatTokenizer.load(str(folder))
    for end in chat.end_token_ids:
        answer, talk, written, loaded = _reply(chat, "yes", ends=True, end=end)
        assert (answer.ending, answer.tokens, answer.text, written) == ("end", 4, "yes", "yes")
        assert talk.turns[-1].content == "yes"
        assert sorted(loaded.asked["eos_token_id"]) == sorted(chat.end_token_ids)
        assert loaded.asked["pad_token_id"] == chat.eos_token_id
    assert len(chat.end_token_ids) == 3


def test_a_mark_of_the_kits_in_a_question_is_a_sentence(byte_chat: ChatTokenizer) -> None:
    with pytest.raises(PromptError, match="the conversation contains U\\+FDD0"):
        Conversation(byte_chat, 100).prepare("a\ufdd0", 10)
