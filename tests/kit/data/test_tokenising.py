"""What a model is asked is, token for token, the beginning of the row it was trained on; and text stays text."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from chat_folders import CHATML, MISTRAL, PLAIN, TIGHT
from encoded_rows import RefusedError, encoded_row
from kit.data import encoding
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.conversations import Conversation, Message, RowProblem
from kit.data.encoding import IGNORE_INDEX, Encoded, encode_prompt, encode_rows
from kit.data.remarks import Mark
from kit.data.template import TemplateError
from kit.model.files import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chat_folders import ChatFolder

STYLES = ("bytes", "legacy", "metaspace", "joined", "pieces")
TEMPLATES = {"mistral": MISTRAL, "tight": TIGHT, "chatml": CHATML, "plain": PLAIN}
# Pieces of text that meet at every border: blanks, brackets, bytes, names of special tokens whole and in halves.
PIECES = (
    "word", "Word", " ", "  ", "\n", "\t", "[", "]", "(", "{", "}", ".", ":", '"', "'", "1", "é", "e\u0301", "日", "🦙",
    "\u00a0", "▁", "<", ">", "</", "s>", "</s>", "<s>", "<unk>", "<|im_end|>", "INST", "[/INST]", "the", "\r\n",
)  # fmt: skip


def talk(*turns: str, system: str = "") -> tuple[Message, ...]:
    head = (Message("system", system),) if system else ()
    roles = ("user", "assistant")
    return head + tuple(Message(roles[at % 2], text, bool(at % 2)) for at, text in enumerate(turns))


def drawn(source: random.Random) -> tuple[Message, ...]:
    def text() -> str:
        return "".join(source.choices(PIECES, k=source.randint(1, 9))) + source.choice(["", "", "x"])

    turns = [text() if source.random() < 0.98 else "x" for _ in range(2 * source.choice((1, 1, 2, 3)))]
    return talk(*(turn if turn.strip() else "x" for turn in turns), system=source.choice(["", "", "", text()]))


def encoded(messages: tuple[Message, ...], chat: ChatTokenizer) -> Encoded:
    (row,) = encode_rows([Conversation(messages, 3)], chat)
    assert not isinstance(row, RowProblem), row
    return row


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_each_answers_prompt_is_the_beginning_of_its_row_and_the_loss_begins_there(
    chat_folder: ChatFolder, template: str, style: str
) -> None:
    chat = ChatTokenizer.load(str(chat_folder(TEMPLATES[template], style)))
    source = random.Random(f"{style} {template}")  # noqa: S311 - no secret
    rows = [encoded(drawn(source), chat) for _ in range(120)]
    for row in rows:
        messages = row.conversation.messages
        answered = [position for position, message in enumerate(messages) if message.is_answer]
        assert len(row.answers) == len(answered)
        for position, (first, _) in zip(answered, row.answers, strict=True):
            prompt = encode_prompt(messages[:position], chat)
            assert row.ids[:first] == prompt
    joins = style in {"joined", "pieces"} and template != "mistral"
    assert any(Mark.CUT in row.marks for row in rows) == joins


@pytest.mark.parametrize("style", ["joined", "pieces"])
def test_only_a_row_whose_tokens_reach_across_is_cut(chat_folder: ChatFolder, style: str) -> None:
    chat = ChatTokenizer.load(str(chat_folder(TIGHT, style)))
    whole, cut = encoded(talk("ask", "tell"), chat), encoded(talk("ask", '{"a": 1}'), chat)
    assert (Mark.CUT in whole.marks, Mark.CUT in cut.marks) == (False, True)
    assert chat.tokenizer.encode("[/INST]{", add_special_tokens=False).tokens[-1] == "]{"
    assert chat.decode(cut.ids, special=True).replace("<s> ", "<s>") == '<s>[INST] ask [/INST]{"a": 1}</s>'
    rendered = chat.render(whole.conversation.messages)
    assert whole.ids == chat.tokenizer.encode(rendered, add_special_tokens=False).ids


def test_a_row_with_nothing_to_hide_never_meets_the_marked_tokenizer(chat_folder: ChatFolder) -> None:
    chat = ChatTokenizer.load(str(chat_folder(TIGHT, "legacy")))
    encoded(talk("ask < /s>", "tell", "more", "told", system="be"), chat)
    assert "marked" not in chat.__dict__


def test_a_turn_that_is_not_learnt_is_cut_as_one_that_is(chat_folder: ChatFolder) -> None:
    chat = ChatTokenizer.load(str(chat_folder(TIGHT, "joined")))
    learnt = talk("ask", "{", "more", "told")
    asked = (*talk("ask", "{"), learnt[2])
    context = tuple(Message(one.role, one.content) for one in learnt[:3])
    ids = [encoded(learnt, chat).ids, encoded((*context, learnt[3]), chat).ids]
    assert ids[0] == ids[1]
    assert encode_prompt(asked, chat) == encode_prompt(context, chat) == ids[0][: len(encode_prompt(asked, chat))]


def test_a_tokenizer_that_puts_a_blank_in_front_of_each_part_is_refused(chat_folder: ChatFolder) -> None:
    def prefix(content: dict[str, Any]) -> None:
        content["pre_tokenizer"]["prepend_scheme"] = "always"

    chat = ChatTokenizer.load(str(_edited(chat_folder(TIGHT, "pieces"), prefix)))
    with pytest.raises(RefusedError, match=r"cannot separate the two; fix: begin the answer with another character"):
        encoded_row(Conversation(talk("ask", "{"), 1), chat)
    assert encoded_row(Conversation(talk("ask", "tell"), 1), chat).trainable_tokens


def _edited(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("template", ["mistral", "chatml"])
def test_the_name_of_a_special_token_in_a_persons_words_is_text(
    chat_folder: ChatFolder, template: str, style: str
) -> None:
    chat = ChatTokenizer.load(str(chat_folder(TEMPLATES[template], style)))
    special = "</s><|im_end|>" if template == "chatml" else "</s>"
    said = encoded(talk(f"a {special} b", f"<s>c{special}", "<unk>", f"</{special}", system=f"{special}rules"), chat)
    plain = encoded(talk("a b", "c", "d", "e", system="rules"), chat)
    for token in chat.special_ids:
        assert said.ids.count(token) == plain.ids.count(token)
    text = chat.decode(said.ids, special=True)
    for words in (f"a {special} b", f"<s>c{special}", f"</{special}", f"{special}rules"):
        assert words in text
    assert not said.marks & Mark.TURN_MARKERS


def test_hidden_text_is_what_its_letters_are(byte_chat: ChatTokenizer) -> None:
    row = encoded_row(Conversation(talk("a </s> b", "c</s>"), 1), byte_chat)
    letters = "[INST] a </s> b [/INST]", " c</s>"
    parts = [[token for letter in part for token in byte_chat.encode(letter)[0]] for part in letters]
    assert row.input_ids == [1, *parts[0], *parts[1], 2]
    assert row.labels == [IGNORE_INDEX] * (1 + len(parts[0])) + [*parts[1], 2]


@pytest.mark.parametrize("style", ["bytes", "legacy"])
def test_special_tokens_that_are_looked_for_twice_are_read_right_or_refused(
    chat_folder: ChatFolder, style: str
) -> None:
    def normalized(content: dict[str, Any]) -> None:
        for token in content["added_tokens"]:
            token["normalized"] = True

    chat = ChatTokenizer.load(str(_edited(chat_folder(MISTRAL, style), normalized)))
    (row,) = encode_rows([Conversation(talk("a </s> b", "c"), 1)], chat)
    if style == "bytes":  # no normaliser: looking twice finds the same
        assert isinstance(row, Encoded)
        assert row.ids.count(2) == 1
    else:  # behind that normaliser `</s>` is looked for as `▁</s>`
        assert isinstance(row, RowProblem)
        assert "cannot read as text" in row.message
    assert isinstance(encode_rows([Conversation(talk("a b", "c"), 1)], chat)[0], Encoded)


def test_tokens_that_overlap_are_all_hidden(chat_folder: ChatFolder) -> None:
    def overlapping(content: dict[str, Any]) -> None:
        for name in ("ab", "bc"):
            token = {**content["added_tokens"][0], "id": 300 + len(content["added_tokens"]), "content": name}
            content["added_tokens"].append(token)

    chat = ChatTokenizer.load(str(_edited(chat_folder(), overlapping)))
    row = encoded(talk("abc", "abbc"), chat)
    assert not {token for token in row.ids if token > 299}


@pytest.mark.parametrize("mark", ["\ufdd0", "\ufdd1"])
def test_a_text_that_holds_a_mark_of_the_kits_is_refused_by_name(byte_chat: ChatTokenizer, mark: str) -> None:
    with pytest.raises(RefusedError, match=f"contains U\\+{ord(mark):X}, a Unicode noncharacter"):
        encoded_row(Conversation(talk(f"a{mark}", "b"), 1), byte_chat)


def test_a_template_that_looks_for_a_special_token_in_a_text_is_refused_there(chat_folder: ChatFolder) -> None:
    template = "{% if '</s>' in messages[0]['content'] %}odd{% endif %}" + MISTRAL
    chat = ChatTokenizer.load(str(chat_folder(template)))
    with pytest.raises(RefusedError, match="which the base model's chat template handles as its own"):
        encoded_row(Conversation(talk("a </s>", "b"), 1), chat)


def test_a_row_that_the_tokenizer_dies_of_is_named_and_the_others_are_kept(chat_folder: ChatFolder) -> None:
    def runaway(content: dict[str, Any]) -> None:
        content["normalizer"] = {"type": "Replace", "pattern": {"Regex": "(q+q+)+z"}, "content": "x"}

    chat = ChatTokenizer.load(str(_edited(chat_folder(), runaway)))
    rows = [Conversation(talk("ask", text), line) for line, text in enumerate(("a", "q" * 60, "b"), start=1)]
    first, bad, last = encode_rows(rows, chat)
    assert isinstance(bad, RowProblem)
    assert bad.line == 2
    assert "makes the base model's tokenizer fail (Onig" in bad.message
    assert isinstance(first, Encoded)
    assert isinstance(last, Encoded)


def test_a_token_beyond_the_embedding_is_refused_by_line_and_in_a_question(chat_folder: ChatFolder) -> None:
    """It ended in an IndexError, in the first micro-batch that held it or in the middle of a conversation."""
    folder = chat_folder(style="legacy")
    (folder / "config.json").write_text(json.dumps({"model_type": "mistral", "vocab_size": 262}), encoding="utf-8")
    chat = ChatTokenizer.load(str(folder))
    turns = talk("Write the word amber.", "amber")
    (row,) = encode_rows([Conversation(turns, 7)], chat)
    assert isinstance(row, RowProblem)
    assert (row.line, row.message) == (7, "has a token beyond the model's embedding of 262 tokens")
    with pytest.raises(TemplateError, match="has a token beyond the model's embedding"):
        encode_prompt(turns[:1], chat)


def test_an_end_beyond_the_embedding_is_refused_at_once(chat_folder: ChatFolder) -> None:
    folder = chat_folder()
    (folder / "config.json").write_text(json.dumps({"model_type": "mistral", "vocab_size": 2}), encoding="utf-8")
    with pytest.raises(ModelFileError, match=r"eos_token has id 2, beyond the model's embedding of 2 tokens; use"):
        ChatTokenizer.load(str(folder))


def test_no_more_is_tokenised_at_once_than_memory_bears(
    byte_chat: ChatTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Conversation(talk("a" * 400, "b"), line) for line in range(1, 8)]
    whole = encode_rows(rows, byte_chat)
    asked: list[int] = []
    monkeypatch.setattr(encoding, "_CHARACTERS_AT_ONCE", 1000)
    real = encoding.tokenise
    monkeypatch.setattr(encoding, "tokenise", lambda texts, chat: asked.append(len(texts)) or real(texts, chat))
    assert encode_rows(rows, byte_chat) == whole
    assert asked == [3, 3, 1]


def test_a_row_that_a_template_makes_too_long_is_a_problem(
    byte_chat: ChatTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "MOST_CHARACTERS", 50)
    good, bad = encode_rows([Conversation(talk("a" * size, "b"), 1) for size in (5, 100)], byte_chat)
    assert isinstance(good, Encoded)
    assert isinstance(bad, RowProblem)
    assert "characters, too many to train on (at most " in bad.message
