"""The base model's tokenizer and chat template, read straight from its files.

Both stacks load the same ``tokenizer.json`` with the same library and the same template engine, so they train on
identical ids; transformers' own wrappers differ between 4.36 and 5 (and importing them imports torch).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from kit.model_files import ModelFileError, find, read_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.conversations import Message


class TemplateError(ValueError):
    """The chat template cannot render a conversation; the message says why."""


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _environment() -> ImmutableSandboxedEnvironment:
    # The settings chat templates are written for: transformers' `_compile_jinja_template`.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _refuse
    return environment


@dataclass(frozen=True)
class ChatTokenizer:
    """A tokenizer with its chat template.

    Attributes:
        tokenizer: The library's tokenizer.
        template: The compiled chat template.
        special_tokens: ``bos_token``, ``eos_token`` … as the template sees them.
        eos_token_id: The id that ends an answer.
        merges_system: The template refuses system messages, so they open the first user turn instead.
    """

    tokenizer: Tokenizer
    template: jinja2.Template
    special_tokens: dict[str, str]
    eos_token_id: int
    merges_system: bool

    @classmethod
    def load(cls, name_or_path: str, revision: str | None = None, *, download: bool = False) -> ChatTokenizer:
        """Load from a folder, the Hugging Face cache or (``download=True``) the hub.

        Raises:
            ModelFileError: A file is missing or broken, or the model has no chat template.
        """
        path = find(name_or_path, "tokenizer.json", revision, download=download)
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as exc:  # the library raises bare exceptions for broken files
            raise ModelFileError(f"{path}: not a tokenizer ({exc}); download the model again") from exc
        tokenizer.no_padding()
        tokenizer.no_truncation()
        config = read_json(find(name_or_path, "tokenizer_config.json", revision, download=download))
        special = {
            name: _token_text(config[name]) for name in ("bos_token", "eos_token", "unk_token") if config.get(name)
        }
        eos = tokenizer.token_to_id(special.get("eos_token", ""))
        if eos is None:
            raise ModelFileError(
                f"{path}: the tokenizer has no eos_token, so an answer could not end; use a chat model"
            )
        source = config.get("chat_template") or _template_file(name_or_path, revision, download=download)
        if isinstance(source, list):  # several named templates: the default one, as transformers does
            source = next((entry["template"] for entry in source if entry.get("name") == "default"), None)
        if not source:
            raise ModelFileError(f"{name_or_path}: the tokenizer has no chat template; use an instruct model")
        try:
            template = _environment().from_string(source)
        except jinja2.TemplateError as exc:
            raise ModelFileError(f"{name_or_path}: its chat template does not compile ({exc})") from exc
        merges = not _carries_system(template, special)
        return cls(tokenizer, template, special, eos, merges)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """Render a conversation as the model reads it, special tokens included as text.

        Raises:
            TemplateError: The template refuses the conversation.
        """
        turns = [{"role": message.role, "content": message.content} for message in messages]
        if self.merges_system and len(turns) > 1 and turns[0]["role"] == "system":
            merged = f"{turns[0]['content']}\n\n{turns[1]['content']}"
            turns = [{"role": "user", "content": merged}, *turns[2:]]
        try:
            return self.template.render(
                messages=turns, add_generation_prompt=add_generation_prompt, **self.special_tokens
            )
        except Exception as exc:  # a template is a program of its own and may fail in any way
            raise TemplateError(f"the base model's chat template refuses it ({exc})") from exc

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokenise rendered text.

        Returns:
            Token ids, and for each its (start, end) in characters of ``text``.
        """
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids back into text, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def _token_text(value: Any) -> str:
    return str(value["content"] if isinstance(value, dict) else value)


def _template_file(name_or_path: str, revision: str | None, *, download: bool) -> str | None:
    try:
        return find(name_or_path, "chat_template.jinja", revision, download=download).read_text(encoding="utf-8")
    except ModelFileError:
        return None


def _carries_system(template: jinja2.Template, special: dict[str, str]) -> bool:
    marker = "a system message to look for"
    turns = [
        {"role": "system", "content": marker},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
    try:
        # Mistral v0.2 raises; some templates drop the message without a word, which is worse.
        return marker in template.render(messages=turns, add_generation_prompt=False, **special)
    except Exception:  # noqa: BLE001 - refused, in whatever way
        return False
