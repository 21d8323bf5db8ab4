"""The forms a Mistral base comes in: the generation of its chat template, the form of its tokenizer.

Recognised by behaviour, not by name: a copy or a fine-tuned model has them too.
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

# Mistral-7B-Instruct-v0.2 on the hub's main since September 2024; up to 41b61a33 (March 2024) the form was older.
V02_REVISION = "3ad372fc79158a2148299e3318516c786aeded6c"
_QUESTION, _ANSWER = "a question to look for", "an answer to look for"


def form_findings(chat: ChatTokenizer, name_or_path: str, revision: str | None, reader: Reader) -> list[Finding]:
    """Report how a stack, not necessarily the running one, reads the base's ``tokenizer.json``.

    Raises:
        ModelFileError: The file is missing.
        OSError: It cannot be read.
    """
    name, path = "model.tokenizer_form", find(name_or_path, "tokenizer.json", revision)
    if not reader.older_tokenizers:
        return [ok(name, f"the {reader.stack} stack reads tokenizer.json unchanged", name_or_path)]
    try:
        form = older_form(read_text(path), rendered=True)
        chat.require_token_first(form, path)
    except (FormError, ModelFileError) as exc:
        found, _, fix = str(exc).removeprefix(f"{path}: ").partition("; ")
        return [error(name, found, fix, name_or_path)]
    how = f"in an equivalent older form ({', '.join(form.changes)})" if form.changes else "unchanged"
    return [ok(name, f"the {reader.stack} stack reads tokenizer.json {how}", name_or_path)]


def template_findings(chat: ChatTokenizer, name_or_path: str) -> list[Finding]:
    """Report the generation of a Mistral template and what it means; nothing for other templates."""
    name = "model.template"
    try:
        text = chat.render([Message("user", _QUESTION), Message("assistant", _ANSWER, is_answer=True)])
    except ValueError:
        return []  # reported with the rows
    between = text.partition(_QUESTION)[2].partition(_ANSWER)[0]
    if "[INST]" not in text or "[/INST]" not in between:
        return []
    found = []
    bos = chat.special_tokens.get("bos_token", "")
    if bos and (times := text.count(bos)) != 1:
        message = f"the chat template writes {bos} {times} times per conversation; Mistral's own writes it once"
        found.append(warning(name, message, "correct the template, or use the base's own", name_or_path))
    rejects = "does not support system messages, which are merged into the first user turn"
    system = rejects if chat.merges_system else "supports system messages"
    if between.endswith(" "):
        message = f"the chat template puts a space before answers and {system}"
        return [*found, ok(name, message, name_or_path)]
    message = (
        "the chat template puts no space before answers, as on the hub until March 2024: an answer's first token "
        f"differs from running text; it {system}"
    )
    fix = f"Mistral-7B-Instruct-v0.2: model.revision={V02_REVISION}, or keep it for an adapter trained with it"
    return [*found, warning(name, message, fix, name_or_path)]
