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

_MOST_SPECIAL = 5000
_BEYOND_IDS = 2**32  # the library's ids have 32 bits


@dataclass(frozen=True)
class ChatTokenizer:
    """A tokenizer with its chat template."""

    tokenizer: Tokenizer
    template: ChatTemplate
    eos_token_id: int  # rows are padded with it
    ends: EndTokens
    parts: TurnParts
    vocabulary: int | None = None  # tokens of the model's embedding; None where no config.json says it

    @classmethod
    def load(
        cls, name_or_path: str, revision: str | None = None, *, download: bool = False, date: str | None = None
    ) -> ChatTokenizer:
        """Load from a folder, the cache or (``download=True``) the hub; ``date`` (YYYY-MM-DD) is the template's today.

        Raises:
            ModelFileError: A file is missing, broken or a danger, or the model has no chat template.
        """
        path = find(name_or_path, "tokenizer.json", revision, download=download)
        template = read_template(name_or_path, revision, date, download=download)
        try_out(name_or_path, path, template)
        tokenizer, form = read_tokenizer(path, rendered=True)
        eos = tokenizer.token_to_id(template.special_tokens.get("eos_token", ""))
        if eos is None:
            raise ModelFileError(
                f"{path}: the tokenizer has no eos_token, so an answer could not end; use a chat model"
            )
        vocabulary = _vocabulary(name_or_path, revision, download=download)
        if vocabulary is not None and eos >= vocabulary:
            raise ModelFileError(
                f"{path}: its eos_token is token {eos:,}, and the model's embedding has {vocabulary:,}; "
                "use the tokenizer.json of this very model"
            )
        if not template.source:
            raise ModelFileError(f"{name_or_path}: the tokenizer has no chat template; use an instruct model")
        special = sum(token.special for token in tokenizer.get_added_tokens_decoder().values())
        if special > _MOST_SPECIAL:
            raise ModelFileError(
                f"{path}: has {special:,} special tokens, each searched for in all text, and no model has "
                f"more than {_MOST_SPECIAL:,}; download the model again, or use another model"
            )
        parts = _parts(name_or_path, template, _special(tokenizer, template))
        declared = declared_ends(name_or_path, revision, functools.partial(_is_token, tokenizer), download=download)
        ends = end_tokens(eos, (parts.end, tokenizer.token_to_id(parts.end) if parts.end else None), declared)
        chat = cls(tokenizer, template, eos, ends, parts, vocabulary)
        chat.require_token_first(form, path)
        return chat

    @classmethod
    def load_for(cls, settings: Settings, *, download: bool = False) -> ChatTokenizer:
        """Load a configuration's base, with the date it pins; see ``load``."""
        model = settings.model
        return cls.load(model.model_name_or_path, model.revision, download=download, date=settings.data.template_date)

    def require_token_first(self, form: OlderForm, path: Path) -> None:
        """Make sure that conversations begin as an older form of the tokenizer at ``path`` needs it.

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
                    f"{path}: marks the beginning of a text, which the reference stack's library cannot, and the chat "
                    f"template begins with text ({text[:20]!r}); take the current stack (STACK=current)"
                )

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as the files' text."""
        rest = (self.template, self.eos_token_id, self.ends, self.parts, self.vocabulary)
        return _rebuilt, (self.tokenizer.to_str(), *rest)

    @property
    def special_tokens(self) -> dict[str, str]:
        """``bos_token``, ``eos_token`` … as the template sees them."""
        return self.template.special_tokens

    @property
    def merges_system(self) -> bool:
        """The template refuses system messages, so they open the first user turn instead."""
        return self.parts.merges_system

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """Every token that ends an answer, the eos_token's first."""
        return self.ends.ids

    @functools.cached_property
    def fingerprint(self) -> str:
        """Everything that decides which ids a conversation becomes, as a SHA-256: what a cache of them is keyed by."""
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

        What only looks like a special token, in a turn's own text, holds a mark: see ``kit.data.marks``.

        Raises:
            TemplateError: The template refuses the conversation, or does not know a key of it, or a turn holds one of
                the marks.
        """
        turns = self._turns(messages)
        marked = [{key: text if key == "role" else self.hide(text) for key, text in turn.items()} for turn in turns]
        text = self.template.render(marked, add_generation_prompt=add_generation_prompt)
        if marked != turns:
            plain = self.template.render(turns, add_generation_prompt=add_generation_prompt)
            if text.replace(HIDE, "") != plain:
                raise TemplateError(
                    "has a special token's name in its text, which the base model's chat template treats as its own",
                    "take the special token's name out of the row",
                )
        elif is_marked(text):
            raise TemplateError("is rendered with U+FDD0 or U+FDD1 by the template, which the kit marks text with")
        return text

    def hide(self, content: str) -> str:
        """Mark what only looks like a special token in a turn's text.

        Raises:
            TemplateError: The text holds a mark of its own.
        """
        if is_marked(content):
            found = "U+FDD0" if HIDE in content else "U+FDD1"
            raise TemplateError(
                f"holds {found}, a noncharacter of Unicode, which the kit marks text with",
                "take the character out of the row",
            )
        return hidden(content, self.special_pattern)

    def _turns(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        for key in (key for message in messages for key, _ in message.thoughts):
            if key not in self.parts.thoughts:
                known = "".join(f"{name} is the key that this template knows; if not, " for name in self.parts.thoughts)
                raise TemplateError(
                    f"has {key} in its turn, which the base model's chat template does not write, so it would be lost",
                    f"{known}write it into the answer, between the marks that the model is to write, or take it out",
                )
        turns = [message.as_turn() for message in messages]
        if self.merges_system and len(turns) > 1 and turns[0]["role"] == "system":
            merged = f"{turns[0]['content']}\n\n{turns[1]['content']}"
            turns = [{"role": "user", "content": merged}, *turns[2:]]
        return turns

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokenise rendered text: its ids, and for each its (start, end) in characters of ``text``.

        Raises:
            TemplateError: The tokenizer fails on it.
        """
        (encoding,) = self.encode_batch([text])
        return encoding.ids, encoding.offsets

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Tokenise many rendered texts at once, on all cores, as the library's own encodings.

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
        """A prompt becomes other ids than in a row only where a token reaches from it into the answer."""
        return merges_alone_decide(self.tokenizer)

    @functools.cached_property
    def looks_again(self) -> bool:
        """Special tokens are found behind the normaliser too; the marked tokenizer finds them only in front of it."""
        added = self.tokenizer.get_added_tokens_decoder().values()
        return any(token.special and token.normalized for token in added)

    @functools.cached_property
    def special_pattern(self) -> re.Pattern[str]:
        """What the tokenizer reads as a special token wherever it stands."""
        return _special(self.tokenizer, self.template)

    @functools.cached_property
    def special_ids(self) -> dict[int, str]:
        """The special tokens' texts by their ids."""
        added = self.tokenizer.get_added_tokens_decoder()
        return {number: token.content for number, token in added.items() if token.special}

    @functools.cached_property
    def markers_pattern(self) -> re.Pattern[str]:
        """The text that the template writes between turns, which nobody can tell from a person's."""
        return special_pattern(self.parts.markers)

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Turn ids back into text, without special tokens unless they are asked for."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=not special))

    def continuation(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """Return what ids that follow a prompt say as a turn's content, blank for blank.

        A sentencepiece decoder drops the blank in front of the text it is given, so the prompt is decoded with them;
        and what the template itself writes in front of an answer is not the answer's.
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
        template.compiled  # noqa: B018 - the first look compiles it
    except Exception as exc:  # a template is a program of its own and may fail in any way
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
