"""The base model's tokenizer and chat template, read straight from its files.

Both stacks load the same ``tokenizer.json`` with the same library and the same template engine, so they train on
identical ids; transformers' own wrappers differ between 4.36 and 5 (and importing them imports torch).
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from kit.data.template_form import require_token_first
from kit.model.files import ModelFileError, find, read_json, read_text
from kit.model.tokenizer_files import read_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tokenizers import Encoding

    from kit.data.conversations import Message


_REASON_SHOWN = 200  # characters of a template's own words


class TemplateError(ValueError):
    """The chat template cannot render a conversation; the message says why, as a row's predicate."""


class _GenerationBlock(Extension):
    """``{% generation %}``: marks answers for whoever wants the marks; here its content is rendered as it stands."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own way to declare a tag

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A call block and not the bare body, so that what is set inside stays inside, as in transformers.
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller: Callable[[], str]) -> str:
        return caller()


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _environment() -> ImmutableSandboxedEnvironment:
    # The settings chat templates are written for: transformers' `_compile_jinja_template`. Its `strftime_now` is left
    # out on purpose: the same rows would become other ids tomorrow.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json  # jinja's own escapes for HTML
    environment.globals["raise_exception"] = _refuse
    # What transformers hands every template, used or not: `tools is none` must hold.
    environment.globals |= {"tools": None, "documents": None}
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
        template_source: The chat template as it was written.
    """

    tokenizer: Tokenizer
    template: jinja2.Template
    special_tokens: dict[str, str]
    eos_token_id: int
    merges_system: bool
    template_source: str = ""

    @classmethod
    def load(cls, name_or_path: str, revision: str | None = None, *, download: bool = False) -> ChatTokenizer:
        """Load from a folder, the Hugging Face cache or (``download=True``) the hub.

        Raises:
            ModelFileError: A file is missing or broken, or the model has no chat template.
        """
        path = find(name_or_path, "tokenizer.json", revision, download=download)
        tokenizer, form = read_tokenizer(path, rendered=True)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        config = read_json(find(name_or_path, "tokenizer_config.json", revision, download=download))
        special = _special_tokens(config)
        eos = tokenizer.token_to_id(special.get("eos_token", ""))
        if eos is None:
            raise ModelFileError(
                f"{path}: the tokenizer has no eos_token, so an answer could not end; use a chat model"
            )
        source = _template_source(name_or_path, config, revision, download=download)
        if not source:
            raise ModelFileError(f"{name_or_path}: the tokenizer has no chat template; use an instruct model")
        try:
            template = _environment().from_string(source)
        except jinja2.TemplateError as exc:
            raise ModelFileError(
                f"{name_or_path}: its chat template does not compile ({exc}); copy it from the model's own repository"
            ) from exc
        merges = not _carries_system(template, special)
        chat = cls(tokenizer, template, special, eos, merges, source)
        require_token_first(form, path, chat)
        return chat

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process: a compiled template does not, its source does."""
        return _rebuilt, (
            self.tokenizer.to_str(),
            self.template_source,
            self.special_tokens,
            self.eos_token_id,
            self.merges_system,
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """Everything that decides which ids a conversation becomes, as a SHA-256: what a cache of them is keyed by."""
        parts = [
            metadata.version("tokenizers"),
            self.tokenizer.to_str(),
            self.template_source,
            json.dumps(self.special_tokens, sort_keys=True),
            f"{self.eos_token_id} {self.merges_system}",
        ]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "backslashreplace")).hexdigest()

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
            reason = " ".join(str(exc).split())[:_REASON_SHOWN]
            raise TemplateError(f"is refused by the base model's chat template ({reason})") from exc

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokenise rendered text.

        Returns:
            Token ids, and for each its (start, end) in characters of ``text``.
        """
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Tokenise many rendered texts at once, on all cores, as the library's own encodings."""
        return list(self.tokenizer.encode_batch(list(texts), add_special_tokens=False))

    @functools.cached_property
    def control_tokens(self) -> re.Pattern[str]:
        """What the tokenizer reads as a special token wherever it stands, in a person's text too."""
        special = [token.content for token in self.tokenizer.get_added_tokens_decoder().values() if token.special]
        return re.compile("|".join(map(re.escape, special)) or "(?!)")

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids back into text, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def _rebuilt(tokenizer: str, source: str, special: dict[str, str], eos: int, merges: bool) -> ChatTokenizer:
    template = _environment().from_string(source)
    return ChatTokenizer(Tokenizer.from_str(tokenizer), template, special, eos, merges, source)


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in config.items()}
    return {key: text for key, text in texts.items() if key.endswith("_token") and isinstance(text, str) and text}


def _template_source(name_or_path: str, config: dict[str, Any], revision: str | None, *, download: bool) -> str | None:
    try:
        path = find(name_or_path, "chat_template.jinja", revision, download=download)
    except ModelFileError:
        source = config.get("chat_template")
    else:
        # A file of its own wins over the configuration, as in transformers 5.
        return read_text(path)
    if isinstance(source, list):  # several named templates: the default one, as transformers does
        named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
        source = named.get("default")
    return source if isinstance(source, str) else None


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
