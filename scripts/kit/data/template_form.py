"""The forms a Mistral base has had: its chat template's generation and its tokenizer's form.

Each is found by what it does, not by the base's name: a copy or a fine-tuned model has them too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, ok, warning
from kit.data.turns import Message
from kit.files.regular_files import read_text
from kit.model.files import ModelFileError, find
from kit.model.tokenizer_form import FormError, older_form

if TYPE_CHECKING:
    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.model.reader import Reader

# Mistral-7B-Instruct-v0.2 as the hub's main has been since September 2024; up to 41b61a33 of March 2024 it was older.
V02_REVISION = "3ad372fc79158a2148299e3318516c786aeded6c"
_QUESTION, _ANSWER = "a question to look for", "an answer to look for"


def form_findings(chat: ChatTokenizer, name_or_path: str, revision: str | None, reader: Reader) -> list[Finding]:
    """Say how a stack, which need not be the one that runs this, reads the base's ``tokenizer.json``.

    Raises:
        ModelFileError: The file is not here.
        OSError: It cannot be read.
    """
    name, path = "model.tokenizer_form", find(name_or_path, "tokenizer.json", revision)
    if not reader.older_tokenizers:
        return [ok(name, f"the {reader.stack} stack reads tokenizer.json as it stands", name_or_path)]
    try:
        form = older_form(read_text(path), rendered=True)
        chat.require_token_first(form, path)
    except (FormError, ModelFileError) as exc:
        found, _, fix = str(exc).removeprefix(f"{path}: ").partition("; ")
        return [error(name, found, fix, name_or_path)]
    how = f"in an equal older form ({', '.join(form.changes)})" if form.changes else "as it stands"
    return [ok(name, f"the {reader.stack} stack reads tokenizer.json {how}", name_or_path)]


def template_findings(chat: ChatTokenizer, name_or_path: str) -> list[Finding]:
    """Say of which generation a Mistral template is, and what that means; nothing of other templates."""
    name = "model.template"
    try:
        text = chat.render([Message("user", _QUESTION), Message("assistant", _ANSWER, is_answer=True)])
    except ValueError:
        return []  # the rows say so
    between = text.partition(_QUESTION)[2].partition(_ANSWER)[0]
    if "[INST]" not in text or "[/INST]" not in between:
        return []
    found = []
    bos = chat.special_tokens.get("bos_token", "")
    if bos and (times := text.count(bos)) != 1:
        message = f"the chat template begins a conversation with {bos} {times} times; Mistral's own does once"
        found.append(warning(name, message, "correct the template, or take the base's own", name_or_path))
    system = "refuses a system message, which goes in front of the first question" if chat.merges_system else ""
    if between.endswith(" "):
        message = f"the chat template puts a blank in front of answers and {system or 'carries a system message'}"
        return [*found, ok(name, message, name_or_path)]
    message = (
        "the chat template puts no blank in front of answers, as the hub's did up to March 2024: their first token "
        f"differs from running text; it {system or 'carries a system message'}"
    )
    fix = f"Mistral-7B-Instruct-v0.2: model.revision={V02_REVISION}, or go on for an adapter that was trained so"
    return [*found, warning(name, message, fix, name_or_path)]
