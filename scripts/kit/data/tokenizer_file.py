"""A model's tokenizer in use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kit.cli.refusals import is_failure
from kit.data.template import TemplateError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

_REASON_SHOWN = 200  # characters of the library's own message


def encode_texts(tokenizer: Tokenizer, texts: list[str]) -> list[Encoding]:
    """Tokenise texts, on all cores.

    Raises:
        TemplateError: The tokenizer fails on one of them.
    """
    try:
        return list(tokenizer.encode_batch(texts, add_special_tokens=False))
    except BaseException as exc:
        if not is_failure(exc):
            raise
        reason = " ".join(str(exc).split())[:_REASON_SHOWN] or type(exc).__name__
        raise TemplateError(f"makes the base model's tokenizer fail ({reason})") from exc


def merges_alone_decide(tokenizer: Tokenizer) -> bool:
    """Tell whether tokens are plain BPE merges of a text's characters, as in Mistral's tokenizer.

    Then the tokens before any token boundary are those of that text alone: a merge never depends on one further right,
    and none is undone. Splitters by regular expression look ahead, so they are excluded.
    """
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    model, splitter = content["model"], content["pre_tokenizer"]
    return (
        model.get("type", "BPE") == "BPE"
        and not any(
            model.get(key) for key in ("dropout", "ignore_merges", "end_of_word_suffix", "continuing_subword_prefix")
        )
        and (splitter is None or splitter["type"] == "Metaspace")
        and _is_letter_by_letter(content["normalizer"])
    )


def _is_letter_by_letter(normalizer: dict[str, Any] | None) -> bool:
    if normalizer is None or normalizer["type"] == "Prepend":
        return True
    if normalizer["type"] == "Sequence":
        return all(map(_is_letter_by_letter, normalizer["normalizers"]))
    return normalizer["type"] == "Replace" and len(normalizer["pattern"].get("String", "")) == 1
