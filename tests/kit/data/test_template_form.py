"""A Mistral template's generation, and how a stack reads the tokenizer, are told by what they do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chat_folders import CHATML, MISTRAL
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.template_form import V02_REVISION, form_findings, template_findings
from kit.model import tokenizer_files
from kit.model.files import ModelFileError
from kit.stacks.registry import GENERATIONS
from mistral.templates import V02_MARCH, V02_SEPTEMBER, V03

if TYPE_CHECKING:
    from pathlib import Path

    from chat_folders import ChatFolder
    from kit.cli.findings import Finding

BLANK = "the chat template puts a space before answers and "
MERGED = "does not support system messages, which are merged into the first user turn"


def _template(chat_folder: ChatFolder, template: str) -> list[Finding]:
    return template_findings(ChatTokenizer.load(str(chat_folder(template))), "base")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (V02_SEPTEMBER, f"{BLANK}supports system messages"),
        (V03, f"{BLANK}supports system messages"),
        (MISTRAL, f"{BLANK}{MERGED}"),
    ],
    ids=["september", "v0.3", "mixed"],
)
def test_a_template_with_the_blank_is_as_the_hubs_is(chat_folder: ChatFolder, template: str, message: str) -> None:
    (found,) = _template(chat_folder, template)
    assert (found.severity, found.message, found.where) == ("ok", message, "base")


@pytest.mark.parametrize(
    ("template", "system"),
    [(V02_MARCH, f"it {MERGED}"), (V02_SEPTEMBER.replace("' ' + message", "message"), "it supports system messages")],
    ids=["march", "without the blank"],
)
def test_a_template_without_the_blank_is_told_with_the_revision_that_is_meant(
    chat_folder: ChatFolder, template: str, system: str
) -> None:
    (found,) = _template(chat_folder, template)
    assert found.severity == "warning"
    assert "no space before answers, as on the hub until March 2024" in found.message
    assert found.message.endswith(system)
    assert f"model.revision={V02_REVISION}" in found.fix


@pytest.mark.parametrize(("beginning", "times"), [("", 0), ("{{ bos_token }}{{ bos_token }}", 2)])
def test_a_conversation_that_does_not_begin_once_is_told(chat_folder: ChatFolder, beginning: str, times: int) -> None:
    told, _ = _template(chat_folder, MISTRAL.replace("{{ bos_token }}", beginning))
    assert (told.severity, told.message) == (
        "warning",
        f"the chat template writes <s> {times} times per conversation; Mistral's own writes it once",
    )


@pytest.mark.parametrize("template", [CHATML, "{{ raise_exception('never') }}"])
def test_nothing_is_said_of_other_templates(chat_folder: ChatFolder, template: str) -> None:
    assert _template(chat_folder, template) == []


def test_every_configuration_of_that_model_names_that_revision() -> None:
    models = [resolve(path).settings.model for path in sorted((PROJECT_ROOT / "configs").rglob("*.yaml"))]
    named = [model.revision for model in models if model.model_name_or_path == "mistralai/Mistral-7B-Instruct-v0.2"]
    assert named == [V02_REVISION] * 3


def _form(folder: Path, stack: str) -> Finding:
    (found,) = form_findings(ChatTokenizer.load(str(folder)), str(folder), None, GENERATIONS[stack].traits.reader)
    return found


def _change_model(folder: Path, **changes: Any) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"] |= changes
    path.write_text(json.dumps(content), encoding="utf-8")


def _write_merges_as_text(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_form_that_both_stacks_read_is_said_to_be(chat_folder: ChatFolder) -> None:
    folder = chat_folder(style="legacy")
    _write_merges_as_text(folder)
    for stack in ("reference", "current"):
        assert _form(folder, stack).message == f"the {stack} stack reads tokenizer.json unchanged"


def test_a_form_that_is_translated_is_said_to_be(chat_folder: ChatFolder) -> None:
    folder = chat_folder(V02_SEPTEMBER, "metaspace")
    _write_merges_as_text(folder)
    assert _form(folder, "current").message == "the current stack reads tokenizer.json unchanged"
    found = _form(folder, "reference")
    assert (found.severity, found.message) == (
        "ok",
        "the reference stack reads tokenizer.json in an equivalent older form (Metaspace as a normalizer)",
    )


def test_a_form_that_is_not_read_is_an_error_with_its_fix(chat_folder: ChatFolder) -> None:
    folder = chat_folder(style="metaspace")
    _change_model(folder, ignore_merges=True)
    assert _form(folder, "current").severity == "ok"
    found = _form(folder, "reference")
    assert (found.severity, found.where) == ("error", str(folder))
    assert found.message.startswith("the model BPE has ignore_merges True, which")
    assert found.fix.startswith("use the current stack (STACK=current)")


WITHOUT_BOS = MISTRAL.replace("{{ bos_token }}", "")


def test_a_template_that_begins_with_text_needs_the_current_stack(
    chat_folder: ChatFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.15 cannot tell the beginning of a text, where today's form puts a mark."""
    folder = chat_folder(WITHOUT_BOS, "metaspace")
    found = _form(folder, "reference")
    assert (found.severity, found.fix) == ("error", "use the current stack (STACK=current)")
    assert "the chat template begins with text ('[INST] a question to')" in found.message
    monkeypatch.setattr(tokenizer_files, "library_version", lambda: "0.15.2")
    with pytest.raises(ModelFileError, match="begins with text"):
        ChatTokenizer.load(str(folder))
    legacy = chat_folder(WITHOUT_BOS, "legacy")
    assert ChatTokenizer.load(str(legacy)).encode("a")[0]
