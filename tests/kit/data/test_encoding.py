"""The loss is taken on the answers and the token that ends each, and on nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_folders import CHATML, MISTRAL
from encoded_rows import RefusedError, encoded_row
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.conversations import Conversation, Message
from kit.data.encoding import IGNORE_INDEX, EncodedRow
from kit.data.rendering import render_row

if TYPE_CHECKING:
    from pathlib import Path

    from chat_folders import ChatFolder

LONG = 10_000
GENERATION = MISTRAL.replace(
    "{{ ' ' + message['content'] + eos_token }}",
    "{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}",
)
UNICODE = "naïve 🦙🦙 日本 שלום\u200f e\u0301"


def _conversation(*turns: str, system: str = "", answers: int = 99) -> Conversation:
    """Turns alternate user and assistant; the last ``answers`` of the assistant's are answers."""
    messages = [Message("system", system)] if system else []
    for position, content in enumerate(turns):
        role = ("user", "assistant")[position % 2]
        messages.append(Message(role, content, is_answer=role == "assistant" and len(turns) - position <= 2 * answers))
    return Conversation(tuple(messages), 7)


def _trained(chat: ChatTokenizer, row: EncodedRow) -> str:
    ids = [label for label in row.labels if label != IGNORE_INDEX]
    return str(chat.tokenizer.decode(ids, skip_special_tokens=False))


def _check_labels(row: EncodedRow) -> None:
    assert len(row.input_ids) == len(row.labels)
    pairs = zip(row.input_ids, row.labels, strict=True)
    assert all(label in {IGNORE_INDEX, token} for token, label in pairs)


@pytest.mark.parametrize(
    ("conversation", "trained"),
    [
        (_conversation("ask", "tell"), " tell</s>"),
        (_conversation("ask", "tell", "more", "told"), " tell</s> told</s>"),
        (_conversation("ask", "tell", "more", "told", answers=1), " told</s>"),
        (_conversation("ask", "tell", "thanks"), " tell</s>"),
        (_conversation("ask", "tell", system="be brief"), " tell</s>"),
        (_conversation(UNICODE, UNICODE, UNICODE, UNICODE), f" {UNICODE}</s> {UNICODE}</s>"),
        (_conversation("tell", "tell", "tell tell", "tell"), " tell</s> tell</s>"),
        (_conversation("a", " \n spaced \n "), "  \n spaced \n </s>"),
        (_conversation("[/INST] a</s>", "b [INST]"), " b [INST]</s>"),
    ],
)
@pytest.mark.parametrize("template", [MISTRAL, GENERATION], ids=["plain", "generation"])
def test_loss_is_on_the_answers_and_their_end(
    chat_folder: ChatFolder, template: str, conversation: Conversation, trained: str
) -> None:
    chat = ChatTokenizer.load(str(chat_folder(template)))
    row = encoded_row(conversation, chat, LONG)
    _check_labels(row)
    assert _trained(chat, row) == trained
    assert row.trainable_tokens == len(trained.replace("</s>", "|").encode())
    assert (row.line, row.full_length) == (7, len(row.input_ids))


@pytest.mark.parametrize("style", ["bytes", "legacy", "metaspace"])
def test_a_line_break_behind_the_end_of_an_answer_is_not_learnt(chat_folder: ChatFolder, style: str) -> None:
    chat = ChatTokenizer.load(str(chat_folder(CHATML, style)))
    row = encoded_row(_conversation("ask", f"tell {UNICODE}", "more", "told", system="be"), chat, LONG)
    assert _trained(chat, row).replace(" ", "") == f"tell {UNICODE}<|im_end|>told<|im_end|>".replace(" ", "")
    ends = [token for token in row.labels if token == chat.eos_token_id]
    assert len(ends) == 2


@pytest.mark.parametrize("style", ["legacy", "metaspace"])
def test_tokens_of_a_byte_and_of_a_word_with_its_space_are_whole(chat_folder: ChatFolder, style: str) -> None:
    chat = ChatTokenizer.load(str(chat_folder(MISTRAL, style)))
    row = encoded_row(_conversation("Write the word", UNICODE, "and", "the quick fox 🦙"), chat, LONG)
    _check_labels(row)
    assert _trained(chat, row) == f"{UNICODE}</s> the quick fox 🦙</s>"


def test_labels_are_what_all_offsets_say(chat_folder: ChatFolder) -> None:
    for style in ("bytes", "legacy", "metaspace"):
        chat = ChatTokenizer.load(str(chat_folder(MISTRAL, style)))
        conversation = _conversation(f"the {UNICODE}", "🦙 word", "[/INST] the", f"answer is {UNICODE} here")
        rendered = render_row(conversation.messages, chat)
        ids, offsets = chat.encode(rendered.text)
        row = encoded_row(conversation, chat, LONG)
        assert row.input_ids == ids
        assert row.labels == [
            token if any(start < until and end > since for since, until in rendered.answers) else IGNORE_INDEX
            for token, (start, end) in zip(ids, offsets, strict=True)
        ]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(st.lists(TEXT, min_size=2, max_size=6).filter(lambda turns: len(turns) % 2 == 0))
def test_any_text_is_learnt_letter_for_letter(byte_chat: ChatTokenizer, turns: list[str]) -> None:
    row = encoded_row(_conversation(*turns), byte_chat, LONG)
    assert _trained(byte_chat, row) == "".join(f" {answer}</s>" for answer in turns[1::2])


def test_a_row_is_cut_at_its_end_wherever_that_is(byte_chat: ChatTokenizer) -> None:
    conversation = _conversation("ask", f"tell {UNICODE}", "more", "told")
    whole = encoded_row(conversation, byte_chat, LONG)
    for length in range(1, whole.full_length + 2):
        row = encoded_row(conversation, byte_chat, length)
        assert row.input_ids == whole.input_ids[:length]
        assert row.labels == whole.labels[:length]
        assert row.full_length == whole.full_length


def test_the_first_token_is_never_counted_as_learnt() -> None:
    # Nothing comes before it, so nothing predicts it.
    assert EncodedRow([5, 6, 7], [5, IGNORE_INDEX, 7], 1, 3).trainable_tokens == 1
    assert EncodedRow([5], [5], 1, 1).trainable_tokens == 0


THINKING = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] + ': ' }}"
    "{% if message['role'] == 'assistant' and not loop.last %}{{ message['content'].split('</think>')[-1] }}"
    "{% else %}{{ message['content'] }}{% endif %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
SYSTEM_LAST = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{% if loop.index0 == messages | length - 1 or loop.index0 == messages | length - 2 %}"
    "{{ 'SYS' + (messages[0]['content'] if messages[0]['role'] == 'system' else '') }}{% endif %}"
    "{{ message['content'] }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "conversation"),
    [
        (THINKING, _conversation("a", "<think>hm</think>b", "c", "<think>hm</think>d")),
        (SYSTEM_LAST, _conversation("a", "b", "c", "d", system="be")),
    ],
)
def test_a_template_that_rewrites_earlier_turns_is_refused(
    chat_folder: ChatFolder, template: str, conversation: Conversation
) -> None:
    chat = ChatTokenizer.load(str(chat_folder(template)))
    with pytest.raises(RefusedError, match=r"once more turns follow.*ARGS=--split-turns"):
        encoded_row(conversation, chat, LONG)


def test_such_a_template_still_serves_where_nothing_is_rewritten(chat_folder: ChatFolder) -> None:
    chat = ChatTokenizer.load(str(chat_folder(THINKING)))
    assert _trained(chat, encoded_row(_conversation("a", "<think>hm</think>b"), chat, LONG)) == "<think>hm</think>b</s>"


def test_an_answer_that_the_template_drops_is_refused(chat_folder: ChatFolder) -> None:
    chat = ChatTokenizer.load(str(chat_folder("{{ bos_token }}{{ messages[0]['content'] }}")))
    with pytest.raises(RefusedError, match="that the template drops"):
        encoded_row(_conversation("a", "b"), chat, LONG)


def test_padding_changes_no_rows_loss(tiny_base: Path) -> None:
    torch: Any = pytest.importorskip("torch", reason="needs the libraries: make setup")
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq

    chat = ChatTokenizer.load(str(tiny_base))
    rows = [
        encoded_row(_conversation(*turns), chat, 64)
        for turns in [("ask", "tell"), ("a" * 9, UNICODE), ("a", "b", "c", "d" * 30), ("cut " * 9, "in the middle" * 5)]
    ]
    filler = EncodedRow([1], [IGNORE_INDEX], 0, 1)
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_base))
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    collate = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORE_INDEX)
    model = AutoModelForCausalLM.from_pretrained(str(tiny_base)).double().eval()

    def loss(batch: list[EncodedRow]) -> tuple[float, int]:
        inputs = collate([{"input_ids": row.input_ids, "labels": row.labels} for row in batch])
        labels = inputs.pop("labels")[:, 1:]
        with torch.no_grad():
            logits = model(**inputs, use_cache=False).logits[:, :-1]
        summed = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        return float(summed), int((labels != IGNORE_INDEX).sum())

    alone = [loss([row]) for row in rows]
    assert [count for _, count in alone] == [row.trainable_tokens for row in rows]
    for batch in (rows, [*rows, filler], [filler, *reversed(rows)]):
        together, count = loss(batch)
        assert together == pytest.approx(sum(value for value, _ in alone), rel=1e-6)
        assert count == sum(row.trainable_tokens for row in rows)
