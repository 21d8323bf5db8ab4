"""The tokenizer and its template: what transformers makes of the same folder, and a sentence for each broken one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chat_folders import CHATML, MISTRAL
from kit.data import chat_tokenizer
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.conversations import Message
from kit.data.template import TemplateError
from kit.model.files import ModelFileError

if TYPE_CHECKING:
    from pathlib import Path

    from chat_folders import ChatFolder

GENERATION = (
    "{{ bos_token }}{%- for message in messages %}\n  {%- if message['role'] == 'user' %}\n"
    "[INST]{{ message['content'] }}[/INST]\n"
    "  {%- else %}\n    {% generation %}{{ message['content'] | trim }}{{ eos_token }}{% endgeneration %}\n"
    "  {%- endif %}\n{%- endfor %}"
)
# What the sandbox gives templates beyond jinja: unescaped JSON, loop controls, tools that are none.
EVERYTHING = (
    "{{ bos_token }}{%- if tools is none and documents is none and not (custom_token is defined) %}ok{%- endif %}"
    "{{ pad_token }}{%- for message in messages %}{%- if loop.index > 9 %}{%- break %}{%- endif %}"
    "{{ {'text': message['content']} | tojson }}{{ eos_token }}{%- endfor %}"
)
PAD = {"pad_token": "<unk>"}
CONVERSATIONS = (
    [("user", "Write the word amber backwards."), ("assistant", "rebma")],
    [("user", "<b>'a' & \"b\"</b>"), ("assistant", "  two  spaces\n\n")],
    [("user", "naïve 🦙 שלום\u200f"), ("assistant", "Ωmega 日本"), ("user", "and\u2028?"), ("assistant", "é")],
    [("user", "</ s> in the text [INST]"), ("assistant", "x[/INST]y")],
)


def _messages(turns: list[tuple[str, str]]) -> list[Message]:
    return [Message(role, content, is_answer=role == "assistant") for role, content in turns]


@pytest.mark.parametrize(
    ("style", "tokenizer_class"),
    [
        ("bytes", "PreTrainedTokenizerFast"),
        ("legacy", "PreTrainedTokenizerFast"),
        ("legacy", "LlamaTokenizer"),
        ("metaspace", "LlamaTokenizer"),
    ],
)
@pytest.mark.parametrize("template", [MISTRAL, CHATML, GENERATION, EVERYTHING], ids=["mistral", "chatml", "gen", "all"])
def test_ids_are_those_of_transformers(
    chat_folder: ChatFolder, style: str, template: str, tokenizer_class: str
) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the libraries: make setup")
    folder = chat_folder(template, style, tokenizer_class=tokenizer_class, **PAD)
    ours, theirs = ChatTokenizer.load(str(folder)), transformers.AutoTokenizer.from_pretrained(str(folder))
    for turns in CONVERSATIONS:
        rows = [{"role": role, "content": content} for role, content in turns]
        for add in (False, True):
            rendered = ours.render(_messages(turns), add_generation_prompt=add)
            expected = theirs.apply_chat_template(rows, tokenize=True, return_dict=False, add_generation_prompt=add)
            assert ours.encode(rendered)[0] == expected
            assert ours.encode_batch([rendered])[0].ids == expected


def test_a_template_file_wins_over_the_configuration_as_in_transformers(chat_folder: ChatFolder) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the libraries: make setup")
    folder = chat_folder("old")
    (folder / "chat_template.jinja").write_text("{{ bos_token }}new", encoding="utf-8")
    ours, theirs = ChatTokenizer.load(str(folder)), transformers.AutoTokenizer.from_pretrained(str(folder))
    rows = [{"role": "user", "content": "a"}]
    assert ours.render([Message("user", "a")]) == theirs.apply_chat_template(rows, tokenize=False) == "<s>new"


def test_the_default_of_several_named_templates_is_used(chat_folder: ChatFolder) -> None:
    named = [{"name": "tool_use", "template": "wrong"}, {"name": "default", "template": MISTRAL}]
    assert ChatTokenizer.load(str(chat_folder(named))).render([Message("user", "a")]) == "<s>[INST] a [/INST]"


def test_special_tokens_may_be_written_as_objects(chat_folder: ChatFolder) -> None:
    folder = chat_folder(eos_token={"content": "</s>", "special": True}, add_bos_token=True)
    chat = ChatTokenizer.load(str(folder))
    assert chat.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    assert chat.tokenizer.id_to_token(chat.eos_token_id) == "</s>"


def test_a_system_message_opens_the_first_user_turn_where_the_template_refuses_it(byte_chat: ChatTokenizer) -> None:
    turns = _messages([("system", "be brief"), ("user", "ask"), ("assistant", "tell"), ("user", "more")])
    assert byte_chat.merges_system
    assert byte_chat.render(turns) == "<s>[INST] be brief\n\nask [/INST] tell</s>[INST] more [/INST]"


def test_a_system_message_is_merged_where_the_template_drops_it(chat_folder: ChatFolder) -> None:
    silent = MISTRAL.replace("{{ raise_exception('no ' + message['role']) }}", "")
    chat = ChatTokenizer.load(str(chat_folder(silent)))
    assert "be brief" in chat.render(_messages([("system", "be brief"), ("user", "ask")]))


def test_a_system_message_stays_where_the_template_carries_it(chat_folder: ChatFolder) -> None:
    chat = ChatTokenizer.load(str(chat_folder(CHATML)))
    assert not chat.merges_system
    assert chat.render(_messages([("system", "be brief"), ("user", "ask")])) == (
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nask<|im_end|>\n"
    )


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('only one turn') }}", "only one turn"),
        ("{{ messages[9].content }}", "has no"),
        ("{{ messages + 1 }}", "can only concatenate"),
        ("{{ messages.append(1) }}", "is unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception('a\nb ' + 'x' * 999) }}", "a b xxx"),
    ],
)
def test_a_template_that_refuses_gives_its_reason_in_one_line(
    chat_folder: ChatFolder, template: str, reason: str
) -> None:
    chat = ChatTokenizer.load(str(chat_folder(template)))
    with pytest.raises(TemplateError, match=r"^is rejected by the base model's chat template \(") as caught:
        chat.render([Message("user", "a")])
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer.json", b"", "not a tokenizer"),
        ("tokenizer.json", b"{}", "not a tokenizer"),
        ("tokenizer.json", b"\xff\xfe", "not a tokenizer"),
        ("tokenizer_config.json", None, "has no tokenizer_config.json"),
        ("tokenizer_config.json", b"{", "is not JSON"),
        ("tokenizer_config.json", b"[]", "not a JSON object"),
        ("tokenizer_config.json", b"\xff", "is not JSON"),
        ("tokenizer_config.json", b"[" * 20_000, "is not JSON"),
        ("chat_template.jinja", b"\xff", "not readable as text"),
        ("chat_template.jinja", b"{% if %}", "does not compile"),
        ("chat_template.jinja", b"{% generation %}", "does not compile"),
        ("chat_template.jinja", b"", "no chat template"),
    ],
)
def test_a_broken_folder_is_refused_in_a_sentence(
    chat_folder: ChatFolder, name: str, content: bytes | None, message: str
) -> None:
    folder = chat_folder()
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        ChatTokenizer.load(str(folder))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("chat_template", None, "no chat template"),
        ("chat_template", 5, "no chat template"),
        ("chat_template", [], "no chat template"),
        ("chat_template", ["a"], "no chat template"),
        ("chat_template", [{"name": "rag", "template": "a"}], "no chat template"),
        ("eos_token", None, "no eos_token"),
        ("eos_token", "<|unheard of|>", "no eos_token"),
        ("eos_token", {"id": 2}, "no eos_token"),
        ("eos_token", ["</s>"], "no eos_token"),
    ],
)
def test_a_broken_configuration_is_refused_in_a_sentence(
    chat_folder: ChatFolder, key: str, value: Any, message: str
) -> None:
    folder = chat_folder()
    _set(folder, key, value)
    with pytest.raises(ModelFileError, match=message):
        ChatTokenizer.load(str(folder))


def _set(folder: Path, key: str, value: Any) -> None:
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, key: value}), encoding="utf-8")


def test_padding_and_truncation_of_the_file_do_not_reach_the_rows(chat_folder: ChatFolder) -> None:
    folder = chat_folder()
    plain = ChatTokenizer.load(str(folder))
    tokenizer = ChatTokenizer.load(str(folder)).tokenizer
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=99)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert ChatTokenizer.load(str(folder)).encode("a long text")[0] == plain.encode("a long text")[0]


def test_text_comes_back_from_its_ids_without_special_tokens(byte_chat: ChatTokenizer) -> None:
    assert byte_chat.decode(byte_chat.encode("<s>naïve 🦙</s>")[0]) == "naïve 🦙"


def test_special_tokens_without_number_are_refused(chat_folder: ChatFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = chat_folder()
    ChatTokenizer.load(str(folder))
    monkeypatch.setattr(chat_tokenizer, "_MOST_SPECIAL", 2)
    with pytest.raises(ModelFileError, match="has 3 special tokens, more than the 2 allowed"):
        ChatTokenizer.load(str(folder))
