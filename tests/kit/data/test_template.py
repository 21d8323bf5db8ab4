"""A template that asks for today's date gets the one that is pinned, and none otherwise."""

from __future__ import annotations

import locale
import pickle
import resource
import sys
from typing import TYPE_CHECKING

import pytest

from chat_folders import MISTRAL
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.data import template as templates
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.conversations import Conversation, Message, RowProblem
from kit.data.encoding import encode_prompt, encode_rows
from kit.data.template import ChatTemplate, TemplateError
from kit.model.files import ModelFileError

if TYPE_CHECKING:
    from chat_folders import ChatFolder

DATED = '{%- set today = strftime_now("%A %d %b %Y") %}{{ today }}' + MISTRAL
# As Mistral Small 3's: asked for only where there is no system message.
SOMETIMES = "{% if messages[0]['role'] != 'system' %}{{ strftime_now('%Y-%m-%d') }}{% endif %}" + MISTRAL
OPTIONAL = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}" + MISTRAL
ASKED = [Message("user", "a")]


@pytest.mark.parametrize("template", [DATED, SOMETIMES])
def test_a_template_that_asks_for_the_date_is_the_models_matter(chat_folder: ChatFolder, template: str) -> None:
    with pytest.raises(ModelFileError, match=r"uses today's date.*; pin the date: data\.template_date=20\d\d-"):
        ChatTokenizer.load(str(chat_folder(template)))


def test_a_pinned_date_is_written_in_the_templates_form(chat_folder: ChatFolder) -> None:
    chat = ChatTokenizer.load(str(chat_folder(DATED)), date="2026-11-27")
    assert chat.render(ASKED) == "Friday 27 Nov 2026<s>[INST] a [/INST]"
    assert pickle.loads(pickle.dumps(chat)).render(ASKED) == chat.render(ASKED)  # noqa: S301 - our own


def test_a_run_pins_the_date_in_its_configuration(chat_folder: ChatFolder) -> None:
    changes = {"model.model_name_or_path": str(chat_folder(DATED)), "data.template_date": "2026-11-27"}
    settings = resolve(PROJECT_ROOT / "configs/training_config_demo.yaml", changes).settings
    assert ChatTokenizer.load_for(settings).template.date == "2026-11-27"


def test_a_template_that_can_do_without_a_date_does(chat_folder: ChatFolder) -> None:
    assert ChatTokenizer.load(str(chat_folder(OPTIONAL))).render(ASKED) == "<s>[INST] a [/INST]"
    assert ChatTokenizer.load(str(chat_folder(OPTIONAL)), date="2026-01-02").render(ASKED).startswith("2026<s>")


def test_another_date_is_another_fingerprint(chat_folder: ChatFolder) -> None:
    found = {
        ChatTokenizer.load(str(chat_folder()), date=date).fingerprint for date in (None, "2026-01-02", "2026-01-03")
    }
    assert len(found) == 3


def test_names_of_days_and_months_are_english_whatever_the_machine_speaks() -> None:
    for name in ("de_DE.UTF-8", "fr_FR.UTF-8"):
        try:
            locale.setlocale(locale.LC_TIME, name)
        except locale.Error:
            continue
        break
    try:
        form = "%%A %a %A %b %B %h %p|%c|%x|%X|%r|%d.%m.%Y %j"
        written = ChatTemplate(f"{{{{ strftime_now('{form}') }}}}", {}, "2026-03-06").render([])
    finally:
        locale.setlocale(locale.LC_TIME, "C")
    expected = "%A Fri Friday Mar March Mar AM|Fri Mar  6 00:00:00 2026|03/06/26|00:00:00|12:00:00 AM|06.03.2026 065"
    assert written == expected


@pytest.mark.skipif(sys.platform != "linux", reason="no other system bounds a process's memory")
@pytest.mark.parametrize(
    "much", ["messages[0].content * 700000000", "'%3000000000d' % messages | length", "range(99999) | list * 9999"]
)
def test_a_template_that_asks_for_gigabytes_on_certain_words_is_given_none(chat_folder: ChatFolder, much: str) -> None:
    limits = resource.getrlimit(resource.RLIMIT_AS)
    chat = ChatTokenizer.load(
        str(chat_folder(template="{% if messages[0].content == 'magic' and " + much + " %}{% endif %}" + MISTRAL))
    )
    rows = [(Message("user", asked), Message("assistant", "b", is_answer=True)) for asked in ("magic", "other")]
    bad, good = encode_rows([Conversation(row, 1) for row in rows], chat)
    assert isinstance(bad, RowProblem)
    assert bad.message == "is rejected by the base model's chat template (MemoryError)"
    assert not isinstance(good, RowProblem)
    with pytest.raises(TemplateError, match="MemoryError"):
        encode_prompt(rows[0][:1], chat)
    assert resource.getrlimit(resource.RLIMIT_AS) == limits


def test_small_powers_are_written() -> None:
    assert ChatTemplate("{{ 2 ** 3 }}", {}).render([]) == "8"


@pytest.mark.parametrize(
    ("run_away", "reason"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "it takes more than 0.2 s"),
        ("{% for a in range(9999) %}aaaaaaaaaaaaaaaaaaaa{% endfor %}", "it writes more than 1,000 characters"),
        ("{{ 9 ** 9 ** 9 }}", "it raises a number to a power that no template needs"),
    ],
)
def test_a_template_that_runs_away_on_certain_words_ends_at_once_and_for_good(
    monkeypatch: pytest.MonkeyPatch, run_away: str, reason: str
) -> None:
    monkeypatch.setattr(templates, "_SECONDS", 0.2)
    monkeypatch.setattr(templates, "_MOST_CHARACTERS", 1000)
    chat = ChatTemplate("{% if messages[0].content == 'magic' %}" + run_away + "{% endif %}fine", {})
    assert chat.render([{"role": "user", "content": "other"}]) == "fine"
    with pytest.raises(TemplateError, match=f"rejected by the base model's chat template .{reason}"):
        chat.render([{"role": "user", "content": "magic"}])
    with pytest.raises(TemplateError, match="exceeded its limits on an earlier row"):
        chat.render([{"role": "user", "content": "other"}])
