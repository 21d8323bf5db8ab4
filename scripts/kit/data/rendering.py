"""Turns as rendered text, with the positions of the answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kit.data.marks import HIDE
from kit.data.remarks import Mark
from kit.data.template import CHANGE_THE_TURNS, TemplateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.turns import Message

_SPLIT_TURNS = "write one row per answer: make data INPUT=… ARGS=--split-turns"
_OTHER_TEMPLATE = (
    "put a chat_template.jinja beside the model's tokenizer_config.json whose finished turn begins with its generation "
    "prompt"
)


class MaskingError(TemplateError):
    """The answers cannot be located in the rendered text; the message is the row's predicate."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text."""

    text: str
    answers: tuple[tuple[int, int], ...]  # (start, end) in characters of each answer with loss
    begins: tuple[int, ...]  # of each assistant turn, with loss or not, that the text keeps as rendered for inference
    marks: Mark


def render_row(messages: Sequence[Message], tokenizer: ChatTokenizer) -> Rendered:
    """Render a conversation and locate its answers.

    An answer is what the template adds after the generation prompt, up to and including the token that ends it, without
    the line break that some templates write after it.

    Raises:
        MaskingError: An answer's turn does not begin with the generation prompt, changes once more turns follow, or is
            not rendered at all.
        TemplateError: The template rejects the conversation.
    """
    text = tokenizer.render(messages)
    answers, begins, marks = [], [], _marks_of(messages, tokenizer)
    for position, message in enumerate(messages):
        if message.role != "assistant":
            continue
        if message.thoughts:
            marks |= _left_out(messages, position, text, tokenizer)
        try:
            begin, end = _turn(messages, position, text, tokenizer)
        except MaskingError:
            if message.is_answer:
                raise
            continue
        begins.append(begin)
        if message.is_answer:
            answers.append((begin, end))
            for said in message.texts:
                marks |= _changed(tokenizer.hide(said), text[begin:end])
    return Rendered(text, tuple(answers), tuple(begins), marks)


def said_by_the_model(messages: Sequence[Message], tokenizer: ChatTokenizer) -> str:
    """Return the last answer as the model should write it, with its thoughts, without the end token.

    Raises:
        TemplateError: As ``render_row`` does.
    """
    if not messages[-1].thoughts:
        return messages[-1].content
    rendered = render_row(messages, tokenizer)
    begin, end = rendered.answers[-1]
    said = tokenizer.special_pattern.sub("", rendered.text[begin:end])
    return said.replace(HIDE, "").strip()


def render_prompt(messages: Sequence[Message], tokenizer: ChatTokenizer) -> Rendered:
    """Render a prompt, up to where the answer begins.

    Raises:
        TemplateError: The template rejects the conversation.
    """
    text = tokenizer.render(messages, add_generation_prompt=True)
    begins = []
    for position, message in enumerate(messages):
        if message.role == "assistant":
            try:
                begins.append(_turn(messages, position, text, tokenizer)[0])
            except MaskingError:
                continue
    return Rendered(text, (), tuple(begins), Mark(0))


def _turn(messages: Sequence[Message], position: int, text: str, tokenizer: ChatTokenizer) -> tuple[int, int]:
    """Return (start, end) of one assistant turn in the whole text."""
    before = tokenizer.render(messages[:position], add_generation_prompt=True)
    after = tokenizer.render(messages[: position + 1]) if position + 1 < len(messages) else text
    if not after.startswith(before):
        raise MaskingError(
            "has an answer whose rendering does not begin with the template's generation prompt, "
            "so it cannot be masked, and no change to the row helps",
            _OTHER_TEMPLATE,
        )
    if not after[len(before) :].strip():
        raise MaskingError("has an answer that the template drops", CHANGE_THE_TURNS)
    end = len(after)
    ends_with = tokenizer.parts.end
    if ends_with and (found := after.rfind(ends_with, len(before))) >= 0:
        end = found + len(ends_with)
    if not text.startswith(after[:end]):
        raise MaskingError(
            "has an answer that the template renders differently once more turns follow, so it cannot be masked",
            _SPLIT_TURNS,
        )
    return len(before), end


def _marks_of(messages: Sequence[Message], tokenizer: ChatTokenizer) -> Mark:
    marks = Mark(0)
    if tokenizer.merges_system and messages[0].role == "system":
        marks |= Mark.MERGED_SYSTEM
    if any(tokenizer.markers_pattern.search(text) for message in messages for text in message.texts):
        marks |= Mark.TURN_MARKERS
    return marks


def _left_out(messages: Sequence[Message], position: int, text: str, tokenizer: ChatTokenizer) -> Mark:
    """Find out whether the template drops a turn's thoughts: the text is then the same without them."""
    message = messages[position]
    for key, _ in message.thoughts:
        without = replace(message, thoughts=tuple(thought for thought in message.thoughts if thought[0] != key))
        if tokenizer.render([*messages[:position], without, *messages[position + 1 :]]) != text:
            continue
        if not message.is_answer:
            return Mark.THOUGHTS  # of an earlier turn, as at inference
        raise MaskingError(
            f"has {key} in an answer, where the chat template drops it, so it would be lost",
            CHANGE_THE_TURNS if message is messages[-1] else _SPLIT_TURNS,
        )
    return Mark(0)


def _changed(content: str, rendered: str) -> Mark:
    if content in rendered:
        return Mark(0)
    return Mark.TRIMMED if content.strip() in rendered else Mark.CHANGED
