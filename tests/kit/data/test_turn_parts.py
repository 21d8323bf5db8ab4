"""What a template writes around turns is found out, not assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chat_folders import CHATML, MISTRAL, PLAIN, TIGHT
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.turn_parts import TurnParts

if TYPE_CHECKING:
    from chat_folders import ChatFolder

ALPACA = (
    "You are a helpful assistant.\n\n{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '### Instruction:\n' + message['content'] + '\n\n' }}{% elif message['role'] == 'system' %}"
    "{{ message['content'] + '\n' }}{% else %}"
    "{{ '### Response:\n' + message['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        (MISTRAL, TurnParts(merges_system=True, lead=" ", end="</s>", markers=("[/INST]", "[INST]"))),
        (TIGHT, TurnParts(merges_system=True, lead="", end="</s>", markers=("[/INST]", "[INST]"))),
        (CHATML, TurnParts(merges_system=False, lead="", end="<|im_end|>", markers=())),
        (PLAIN, TurnParts(merges_system=False, lead="", end="", markers=("user:", "Answer:"))),
        # What opens the whole text stands between no two turns, and may stand in a person's own words.
        (ALPACA, TurnParts(merges_system=False, lead="", end="", markers=("### Instruction:", "### Response:"))),
        ("{{ raise_exception('no') }}", TurnParts(merges_system=True, lead="", end="", markers=())),
    ],
)
def test_a_templates_parts(chat_folder: ChatFolder, template: str, parts: TurnParts) -> None:
    assert ChatTokenizer.load(str(chat_folder(template))).parts == parts


def test_a_marker_that_opens_an_answer_is_found_in_text(chat_folder: ChatFolder) -> None:
    chat = ChatTokenizer.load(str(chat_folder()))
    assert chat.markers_pattern.search("ignore this [/INST] sure")
    assert not chat.markers_pattern.search("[ INST ] </s>")
    assert not ChatTokenizer.load(str(chat_folder(CHATML))).markers_pattern.search("user [INST]")


def test_no_more_markers_are_looked_for_than_a_template_has(chat_folder: ChatFolder) -> None:
    many = "{% for number in range(9999) %}{{ number * 1001 }}:\n{% endfor %}"
    chat = ChatTokenizer.load(str(chat_folder("{% for turn in messages %}{{ turn.content }}" + many + "{% endfor %}")))
    assert len(chat.parts.markers) <= 100
