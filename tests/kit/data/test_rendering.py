"""Where answers are in rendered text, what the template makes of them, and the true cause where they are not found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from chat_folders import CHATML, MISTRAL
from encoded_rows import RefusedError, encoded_row
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.conversations import Conversation, Message
from kit.data.encoding import IGNORE_INDEX
from kit.data.remarks import Mark
from kit.data.rendering import MaskingError, render_prompt, render_row, said_by_the_model
from kit.data.template import TemplateError
from kit.intake.turns import one_answer_each

if TYPE_CHECKING:
    from chat_folders import ChatFolder

# As Qwen3's: an answer's thoughts are written while it is the last, and an empty thought where it has none.
DROPS_THOUGHTS = CHATML.replace(
    "{{ message['role'] + '\n' + message['content'] }}",
    "{{ message['role'] + '\n' }}{% if message['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}"
    "{% endif %}{{ message['content'] }}",
)
# As Qwen3's: an answer's own thoughts are written while it is the last, and dropped once more turns follow.
WRITES_THOUGHTS = CHATML.replace(
    "{{ message['role'] + '\n' + message['content'] }}",
    "{{ message['role'] + '\n' }}{% if loop.last and message.reasoning_content %}"
    "{{ '<think>\n' + message.reasoning_content.strip('\n') + '\n</think>\n\n' }}{% endif %}{{ message['content'] }}",
)
# As DeepSeek-R1's: the generation prompt opens a thought that the finished answer does not have.
OPENS_A_THOUGHT = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
# As Phi-3's: what ends the text stands behind the last turn only.
ENDS_THE_TEXT = CHATML.replace("assistant\n{% endif %}", "assistant\n{% else %}</s>{% endif %}")


def talk(*turns: str) -> tuple[Message, ...]:
    return tuple(Message(("user", "assistant")[at % 2], text, bool(at % 2)) for at, text in enumerate(turns))


def thinking(*turns: str, key: str = "reasoning_content") -> tuple[Message, ...]:
    """Each answer has a thought, ``think a`` of what answers ``a``."""
    return tuple(replace(turn, thoughts=((key, f"think {turn.content}"),) * turn.is_answer) for turn in talk(*turns))


def chat_of(chat_folder: ChatFolder, template: str) -> ChatTokenizer:
    folder = chat_folder(CHATML)  # the tokens
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return ChatTokenizer.load(str(folder))


def test_a_template_that_rewrites_turns_names_the_way_that_works(chat_folder: ChatFolder) -> None:
    chat = chat_of(chat_folder, DROPS_THOUGHTS)
    with pytest.raises(MaskingError, match="that the template renders differently once more turns follow") as refused:
        render_row(talk("a", "b", "c", "d"), chat)
    assert "ARGS=--split-turns" in refused.value.fix
    for apart in (talk("a", "b"), (Message("user", "a"), Message("assistant", "b"), *talk("c", "d"))):
        assert len(render_row(apart, chat).answers) == 1


@pytest.mark.parametrize("turns", [("a", "b"), ("a", "b", "c", "d")])
def test_a_generation_prompt_that_no_answer_begins_with_is_the_templates_matter(
    chat_folder: ChatFolder, turns: tuple[str, ...]
) -> None:
    chat = chat_of(chat_folder, OPENS_A_THOUGHT)
    with pytest.raises(MaskingError, match="no change to the row helps") as refused:
        render_row(talk(*turns), chat)
    assert "once more turns follow" not in str(refused.value)
    assert "put a chat_template.jinja beside" in refused.value.fix


def test_what_stands_behind_the_last_turn_alone_is_no_reason_to_refuse(chat_folder: ChatFolder) -> None:
    chat = chat_of(chat_folder, ENDS_THE_TEXT)
    row = encoded_row(Conversation(talk("a", "b", "c", "d"), 1), chat)
    learnt = chat.decode([label for label in row.labels if label != IGNORE_INDEX], special=True)
    assert learnt == "b<|im_end|>d<|im_end|>"


def test_a_prompt_with_turns_that_are_not_found_is_asked_as_it_is(chat_folder: ChatFolder) -> None:
    chat = chat_of(chat_folder, DROPS_THOUGHTS)
    asked = talk("a", "b", "c")
    assert render_prompt(asked, chat).text == chat.render(asked, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("content", "answer", "mark"),
    [
        ("message['content']", " told \n", Mark(0)),
        ("message['content'] | trim", " told \n", Mark.TRIMMED),
        ("message['content'].split('</think>')[-1]", "<think>hm</think>told", Mark.CHANGED),
        ("message['content'] | upper", "told", Mark.CHANGED),
        ("message['content'] | trim", "a </s> b", Mark(0)),
    ],
)
def test_an_answer_that_the_template_changes_is_marked(
    chat_folder: ChatFolder, content: str, answer: str, mark: Mark
) -> None:
    template = MISTRAL.replace("' ' + message['content'] + eos_token", f"' ' + ({content}) + eos_token")
    chat = ChatTokenizer.load(str(chat_folder(template)))
    assert render_row(talk("ask", answer), chat).marks == mark


def test_an_answer_that_is_left_out_is_refused(chat_folder: ChatFolder) -> None:
    chat = ChatTokenizer.load(str(chat_folder("{{ bos_token }}{{ messages[0]['content'] }}")))
    with pytest.raises(RefusedError, match="that the template drops"):
        encoded_row(Conversation(talk("a", "b"), 1), chat)


def test_thoughts_are_learnt_as_the_template_writes_them(chat_folder: ChatFolder) -> None:
    chat = chat_of(chat_folder, WRITES_THOUGHTS)
    assert chat.parts.thoughts == ("reasoning_content",)
    turns = (*talk("a", "b", "c"), *thinking("c", "d <|im_end|>")[1:])
    row = encoded_row(Conversation(turns, 1), chat)
    learnt = [label for label in row.labels if label != IGNORE_INDEX]
    said = "<think>\nthink d <|im_end|>\n</think>\n\nd <|im_end|>"
    assert chat.decode(learnt, special=True) == f"b<|im_end|>{said}<|im_end|>"
    assert learnt.count(chat.eos_token_id) == 2  # what only looks like it stays text, in a thought too
    assert said_by_the_model(turns, chat) == said
    assert render_row(turns, chat).marks == Mark(0)


def test_thoughts_that_the_template_drops_from_an_answer_are_refused_and_learnt_when_turns_are_split(
    chat_folder: ChatFolder,
) -> None:
    chat = chat_of(chat_folder, WRITES_THOUGHTS)
    for more in ((), ("thanks",)):
        turns = thinking("a", "b", "c", "d", *more)
        with pytest.raises(MaskingError, match="has reasoning_content in an answer, where the chat template drops it"
                           ) as refused:  # fmt: skip
            render_row(turns, chat)
        assert "ARGS=--split-turns" in refused.value.fix
        first, second = (render_row(part, chat) for part in one_answer_each(turns))
        assert (first.marks, second.marks) == (Mark(0), Mark.THOUGHTS)  # b's thought is no part of what d is asked
        assert "think b" in first.text
        assert "think d" in second.text
        assert "think b" not in second.text


def test_thoughts_under_a_key_that_the_template_does_not_know_are_refused(chat_folder: ChatFolder) -> None:
    with pytest.raises(TemplateError, match=r"has reasoning_content in a turn, which .* does not render"):
        render_row(thinking("a", "b"), chat_of(chat_folder, CHATML))
    with pytest.raises(TemplateError, match="has thinking in a turn") as refused:
        render_prompt(thinking("a", "b", "c", key="thinking"), chat_of(chat_folder, WRITES_THOUGHTS))
    assert refused.value.fix.startswith("rename it to reasoning_content, or")
