"""The base model's tokenizer and chat template, read straight from its files.

Both stacks load the same ``tokenizer.json`` with the same library and the same template engine, so they train on
identical ids; transformers' own wrappers differ between 4.36 and 5 (and importing them imports torch).
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from kit.data.end_tokens import EndTokens, declared_ends, end_tokens
from kit.data.marks import HIDE, hidden, is_marked, marked_tokenizer, special_pattern
from kit.data.template import ChatTemplate, DateError, TemplateError, read_template
from kit.data.tokenizer_file import encode_texts, merges_alone_decide
from kit.data.trial import try_out
from kit.data.turn_parts import TurnParts, turn_parts
from kit.data.turns import Message
from kit.model.files import ModelFileError, find, read_json
from kit.model.tokenizer_files import read_tokenizer

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence
    from pathlib import Path

    from tokenizers import Encoding

    from kit.config.settings import Settings
    from kit.model.tokenizer_form import OlderForm

_MOST_SPECIAL = 5000  # each is searched for in all text; no model has more
_BEYOND_IDS = 2**32  # the library's ids have 32 bits


@dataclass(frozen=True)
class ChatTokenizer:
    """A tokenizer with its chat template."""

    tokenizer: Tokenizer
    template: ChatTemplate
    eos_token_id: int  # rows are padded with it
    ends: EndTokens
    parts: TurnParts
    vocabulary: int | None = None  # tokens of the model's embedding; None without a config.json

    @classmethod
    def load(
        cls, name_or_path: str, revision: str | None = None, *, download: bool = False, date: str | None = None
    ) -> ChatTokenizer:
        """Load from a folder, the Hugging Face cache or (``download=True``) the hub; ``date``: the template's today.

        Raises:
            ModelFileError: A file is missing, broken or dangerous, or the model has no chat template.
        """
        path = find(name_or_path, "tokenizer.json", revision, download=download)
        template = read_template(name_or_path, revision, date, download=download)
        try_out(name_or_path, path, template)
        tokenizer, form = read_tokenizer(path, rendered=True)
        eos = tokenizer.token_to_id(template.special_tokens.get("eos_token", ""))
        if eos is None:
            raise ModelFileError(f"{path}: the tokenizer has no eos_token, so no answer could end; use a chat model")
        vocabulary = _vocabulary(name_or_path, revision, download=download)
        if vocabulary is not None and eos >= vocabulary:
            raise ModelFileError(
                f"{path}: eos_token has id {eos:,}, beyond the model's embedding of {vocabulary:,} tokens; "
                "use this model's own tokenizer.json"
            )
        if not template.source:
            raise ModelFileError(f"{name_or_path}: the tokenizer has no chat template; use an instruct model")
        special = sum(token.special for token in tokenizer.get_added_tokens_decoder().values())
        if special > _MOST_SPECIAL:
            raise ModelFileError(
                f"{path}: has {special:,} special tokens, more than the {_MOST_SPECIAL:,} allowed; "
                "download the model again, or use another model"
            )
        parts = _parts(name_or_path, template, _special(tokenizer, template))
        declared = declared_ends(name_or_path, revision, functools.partial(_is_token, tokenizer), download=download)
        ends = end_tokens(eos, (parts.end, tokenizer.token_to_id(parts.end) if parts.end else None), declared)
        chat = cls(tokenizer, template, eos, ends, parts, vocabulary)
        chat.require_token_first(form, path)
        return chat

    @classmethod
    def load_for(cls, settings: Settings, *, download: bool = False) -> ChatTokenizer:
        """Load a configuration's base with its pinned date; see ``load``."""
        model = settings.model
        return cls.load(model.model_name_or_path, model.revision, download=download, date=settings.data.template_date)

    def require_token_first(self, form: OlderForm, path: Path) -> None:
        """Require conversations that begin with an added token, if the older form of the tokenizer at ``path`` does.

        Raises:
            ModelFileError: The template begins with text.
        """
        if not form.begins_with_token:
            return
        beginnings = tuple(token.content for token in self.tokenizer.get_added_tokens_decoder().values())
        for roles in (("user",), ("user", "assistant"), ("system", "user", "assistant")):
            try:
                text = self.render([Message(role, "a question to look for") for role in roles])
            except TemplateError:  # nothing of this shape will be tokenised
                continue
            if not text.startswith(beginnings):
                raise ModelFileError(
                    f"{path}: adds a prefix at the start of a text, which the reference stack's library cannot, and "
                    f"the chat template begins with text ({text[:20]!r}); use the current stack (STACK=current)"
                )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the files' text."""
        rest = (self.template, self.eos_token_id, self.ends, self.parts, self.vocabulary)
        return _rebuilt, (self.tokenizer.to_str(), *rest)

    @property
    def special_tokens(self) -> dict[str, str]:
        """``bos_token``, ``eos_token`` … as the template sees them."""
        return self.template.special_tokens

    @property
    def merges_system(self) -> bool:
        """The template rejects system messages, so they are merged into the first user turn."""
        return self.parts.merges_system

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """Every token that ends an answer, the eos_token first."""
        return self.ends.ids

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides a conversation's ids: the key of a cache of them."""
        parts = [
            metadata.version("tokenizers"),
            self.tokenizer.to_str(),
            self.template.source,
            json.dumps(self.special_tokens, sort_keys=True),
            f"{self.template.date} {self.ends} {self.parts} {self.vocabulary}",
        ]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "backslashreplace")).hexdigest()

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """Render a conversation as the model reads it, special tokens included as text.

        Text in a turn that looks like a special token gets a mark: see ``kit.data.marks``.

        Raises:
            TemplateError: The template rejects the conversation or a key of it, or a turn contains a mark.
        """
        turns = self._turns(messages)
        marked = [{key: text if key == "role" else self.hide(text) for key, text in turn.items()} for turn in turns]
        text = self.template.render(marked, add_generation_prompt=add_generation_prompt)
        if marked != turns:
            plain = self.template.render(turns, add_generation_prompt=add_generation_prompt)
            if text.replace(HIDE, "") != plain:
                raise TemplateError(
                    "has a special token in its text, which the base model's chat template handles as its own",
                    "remove the special token from the row's text",
                )
        elif is_marked(text):
            raise TemplateError("is rendered with U+FDD0 or U+FDD1, which the kit reserves as marks")
        return text

    def hide(self, content: str) -> str:
        """Mark what looks like a special token in a turn's text.

        Raises:
            TemplateError: The text already contains a mark.
        """
        if is_marked(content):
            found = "U+FDD0" if HIDE in content else "U+FDD1"
            raise TemplateError(
                f"contains {found}, a Unicode noncharacter that the kit reserves as a mark",
                "remove the character from the row",
            )
        return hidden(content, self.special_pattern)

    def _turns(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        for key in (key for message in messages for key, _ in message.thoughts):
            if key not in self.parts.thoughts:
                known = "".join(f"rename it to {name}, or " for name in self.parts.thoughts)
                raise TemplateError(
                    f"has {key} in a turn, which the base model's chat template does not render, so it would be lost",
                    f"{known}write it into the answer between the model's own markers, or remove it",
                )
        turns = [message.as_turn() for message in messages]
        if self.merges_system and len(turns) > 1 and turns[0]["role"] == "system":
            merged = f"{turns[0]['content']}\n\n{turns[1]['content']}"
            turns = [{"role": "user", "content": merged}, *turns[2:]]
        return turns

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokenise rendered text: its ids, and each one's (start, end) in characters of ``text``.

        Raises:
            TemplateError: The tokenizer fails on it.
        """
        (encoding,) = self.encode_batch([text])
        return encoding.ids, encoding.offsets

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Tokenise many rendered texts at once, on all cores.

        Raises:
            TemplateError: The tokenizer fails on one of them.
        """
        marked = [is_marked(text) for text in texts]
        plain = iter(encode_texts(self.tokenizer, [text for text, is_ in zip(texts, marked, strict=True) if not is_]))
        if not any(marked):
            return list(plain)
        read = iter(encode_texts(self.marked, [text for text, is_ in zip(texts, marked, strict=True) if is_]))
        return [next(read if is_ else plain) for is_ in marked]

    @functools.cached_property
    def marked(self) -> Tokenizer:
        """The tokenizer that reads marked text."""
        return marked_tokenizer(self.tokenizer)

    @functools.cached_property
    def merges_alone_decide(self) -> bool:
        """A prompt's ids differ from those in its row only where one token spans prompt and answer."""
        return merges_alone_decide(self.tokenizer)

    @functools.cached_property
    def looks_again(self) -> bool:
        """Special tokens are matched after the normaliser too; the marked tokenizer matches only before it."""
        added = self.tokenizer.get_added_tokens_decoder().values()
        return any(token.special and token.normalized for token in added)

    @functools.cached_property
    def special_pattern(self) -> re.Pattern[str]:
        """Matches every text that the tokenizer reads as a special token."""
        return _special(self.tokenizer, self.template)

    @functools.cached_property
    def special_ids(self) -> dict[int, str]:
        """The special tokens' texts by their ids."""
        added = self.tokenizer.get_added_tokens_decoder()
        return {number: token.content for number, token in added.items() if token.special}

    @functools.cached_property
    def markers_pattern(self) -> re.Pattern[str]:
        """Matches the plain text that the template writes between turns, such as ``[INST]``."""
        return special_pattern(self.parts.markers)

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Decode ids; special tokens are left out unless ``special``."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=not special))

    def continuation(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """Decode the ids generated after a prompt as a turn's content, whitespace included.

        A sentencepiece decoder drops a leading space, so the prompt is decoded along; what the template writes before
        an answer is removed.
        """
        before, whole = self.decode(prompt), self.decode([*prompt, *ids])
        text = whole[len(before) :] if whole.startswith(before) else self.decode(ids)
        return text.removeprefix(self.parts.lead)


def _rebuilt(tokenizer: str, *rest: Any) -> ChatTokenizer:
    return ChatTokenizer(Tokenizer.from_str(tokenizer), *rest)


def _vocabulary(name_or_path: str, revision: str | None, *, download: bool) -> int | None:
    try:
        size = read_json(find(name_or_path, "config.json", revision, download=download)).get("vocab_size")
    except ModelFileError:
        return None  # a tokenizer alone is enough to prepare data; a base without it is refused elsewhere
    return size if type(size) is int else None


def _parts(name_or_path: str, template: ChatTemplate, special: re.Pattern[str]) -> TurnParts:
    try:
        template.compiled  # noqa: B018 - the first access compiles it
    except Exception as exc:  # a template is a program and may fail in any way
        raise ModelFileError(
            f"{name_or_path}: its chat template does not compile ({exc}); copy it from the model's own repository"
        ) from exc
    try:
        return turn_parts(template, special)
    except DateError as exc:
        raise ModelFileError(f"{name_or_path}: {exc}; {exc.fix}") from exc


def _is_token(tokenizer: Tokenizer, number: int) -> bool:
    return 0 <= number < _BEYOND_IDS and tokenizer.id_to_token(number) is not None


def _special(tokenizer: Tokenizer, template: ChatTemplate) -> re.Pattern[str]:
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    return special_pattern([*special, template.special_tokens.get("eos_token", "")])
