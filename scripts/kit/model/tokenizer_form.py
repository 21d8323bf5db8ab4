"""The form of a base's ``tokenizer.json``: read unchanged, translated into an equivalent older form, or rejected.

The current stack's tokenizers library writes what the reference stack's 0.15 rejects, ignores (``ignore_merges``) or
reads differently (``prepend_scheme: first`` marks the first piece that is not an added token, not the start of the
text). So 0.15 gets an allow-list: parts and keys that it reads as the newer library does, and the few that have an
equivalent older form. ``tests/kit/model/test_tokenizer_form.py`` compares both libraries.

The older form lists the file's added tokens: remove tokens in the file's own form first, then translate.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_TAKE_CURRENT = "use the current stack (STACK=current), or a model.revision whose tokenizer.json is older"

# Part, its types, and the keys of each besides "type" that 0.15 supports.
_KNOWN: dict[str, dict[str, frozenset[str]]] = {
    "normalizer": {
        **dict.fromkeys(("NFC", "NFD", "NFKC", "NFKD", "StripAccents"), frozenset[str]()),
        "Strip": frozenset({"strip_left", "strip_right"}),
        "Prepend": frozenset({"prepend"}),
        "Replace": frozenset({"pattern", "content"}),
    },
    "pre_tokenizer": {
        "ByteLevel": frozenset({"add_prefix_space", "trim_offsets", "use_regex"}),
        "Split": frozenset({"pattern", "behavior", "invert"}),
        "Digits": frozenset({"individual_digits"}),
        "Punctuation": frozenset({"behavior"}),
        "WhitespaceSplit": frozenset(),
    },
    "post_processor": {
        "ByteLevel": frozenset({"add_prefix_space", "trim_offsets", "use_regex"}),
        "TemplateProcessing": frozenset({"single", "pair", "special_tokens"}),
    },
    "decoder": {
        "ByteLevel": frozenset({"add_prefix_space", "trim_offsets", "use_regex"}),
        "ByteFallback": frozenset(),
        "Fuse": frozenset(),
        "Replace": frozenset({"pattern", "content"}),
        "Strip": frozenset({"content", "start", "stop"}),
    },
}
_SEQUENCES = {
    "normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "post_processor": "processors",
    "decoder": "decoders",
}  # fmt: skip
_MODEL_KEYS = frozenset(
    {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback"}
    | {"ignore_merges", "vocab", "merges"}
)
_TOKEN_KEYS = frozenset({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"})
_TOP_KEYS = frozenset({"version", "truncation", "padding", "added_tokens", "model", *_KNOWN})
_SCHEMES = ("always", "first", "never")
_METASPACE_KEYS = frozenset({"type", "replacement", "prepend_scheme", "add_prefix_space", "split"})


class FormError(ValueError):
    """The older library would not read the file, or read it differently; one sentence with its fix."""


@dataclass(frozen=True)
class OlderForm:
    """A ``tokenizer.json`` for the reference stack's library."""

    text: str  # the file's own if nothing had to be translated
    changes: tuple[str, ...] = ()  # what was translated, in words
    begins_with_token: bool = False  # equivalent only for texts that begin with an added token


def older_form(text: str, *, rendered: bool = False) -> OlderForm:
    """Return a ``tokenizer.json``'s text in a form that tokenizers 0.15 reads to the same ids, offsets and text.

    Text that is not a tokenizer is returned unchanged: the library reports the error. ``rendered``: it reads only
    conversations, which begin with an added token, so a prefix at the start of a text does not matter and added tokens
    stay as they are; otherwise the form holds for any text, and matches them after the normaliser.

    Raises:
        FormError: There is no such form, or none known to be equivalent.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return OlderForm(text)
    if not (isinstance(content, dict) and isinstance(content.get("model"), dict)):
        return OlderForm(text)
    _only(content, _TOP_KEYS, "tokenizer.json")
    changes = _older_model(content["model"])
    tokens = [token for token in content.get("added_tokens") or [] if isinstance(token, dict)]
    for token in tokens:
        _only(token, _TOKEN_KEYS, "an added token")
    pre, by_token = content.get("pre_tokenizer"), False
    if isinstance(pre, dict) and pre.get("type") == "Metaspace" and pre.get("split") is False:
        by_token = rendered and _scheme(pre) == "first"
        pre = {**pre, "prepend_scheme": "never"} if by_token else pre
        content["normalizer"] = _metaspace_normalizer(pre, content.get("normalizer"), tokens)
        content["pre_tokenizer"] = None
        changes.append("Metaspace as a normalizer")
    for part in _KNOWN:
        changes += _check(content.get(part), part)
    if not changes:
        return OlderForm(text)
    return OlderForm(json.dumps(content, ensure_ascii=False), tuple(changes), begins_with_token=by_token)


def _refuse(what: str) -> FormError:
    return FormError(f"{what}, which the reference stack's tokenizers library would read differently; {_TAKE_CURRENT}")


def _only(content: dict[str, Any], known: frozenset[str], place: str) -> None:
    if unknown := sorted(content.keys() - known):
        raise _refuse(f"{place} has the key {unknown[0]!r}")


def _check(component: Any, part: str) -> list[str]:
    """Check one component, and those inside it, against the allow-list; return what was translated."""
    if not isinstance(component, dict):
        return []  # null, or invalid for every library
    kind, inside = component.get("type"), _SEQUENCES[part]
    if kind == "Sequence":
        _only(component, frozenset({"type", inside}), f"the {part} {kind}")
        return [change for each in component.get(inside) or [] for change in _check(each, part)]
    if kind == "Metaspace" and part in {"pre_tokenizer", "decoder"}:
        return _older_metaspace(component, part)
    known = _KNOWN[part].get(kind) if isinstance(kind, str) else None
    if known is None:
        raise _refuse(f"the {part} is {kind!r}")
    _only(component, known | {"type"}, f"the {part} {kind}")
    return []


def _older_model(model: dict[str, Any]) -> list[str]:
    if model.get("type") != "BPE":
        raise _refuse(f"the model is {model.get('type')!r}, not BPE")
    _only(model, _MODEL_KEYS, "the model BPE")
    for key in ("ignore_merges", "dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise _refuse(f"the model BPE has {key} {model[key]!r}")
    merges = model.get("merges")
    if not (isinstance(merges, list) and any(isinstance(pair, list) for pair in merges)):
        return []
    model["merges"] = [_as_text(pair) for pair in merges]
    return ["merges as text"]


def _as_text(pair: Any) -> str:
    if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(half, str) for half in pair)):  # noqa: PLR2004 - a pair
        raise _refuse(f"its merges contain {str(pair)[:40]!r}")
    # As text a pair is two words, and a line beginning with #version is the header of a merges.txt.
    if any(" " in half for half in pair) or pair[0].startswith("#version"):
        raise _refuse(f"its merges contain the pair {pair!r}")
    return f"{pair[0]} {pair[1]}"


def _older_metaspace(component: dict[str, Any], part: str) -> list[str]:
    """Give a Metaspace that splits or decodes the key that 0.15 needs instead of those it ignores."""
    scheme = _scheme(component)
    if part == "pre_tokenizer" and (scheme == "first" or component.get("split") is False):
        raise _refuse(f"the {part} is a Metaspace with prepend_scheme {scheme!r} that splits, or is in a Sequence")
    before = dict(component)
    component.pop("split", None)
    component |= {"add_prefix_space": scheme != "never", "prepend_scheme": scheme}
    return [f"the {part}'s Metaspace with add_prefix_space"] if component.keys() != before.keys() else []


def _scheme(metaspace: dict[str, Any]) -> str:
    _only(metaspace, _METASPACE_KEYS, "the Metaspace")
    adds = metaspace.get("add_prefix_space")
    scheme = metaspace.get("prepend_scheme", "never" if adds is False else "always")
    if scheme not in _SCHEMES or (adds is False and scheme != "never"):
        raise _refuse(f"the Metaspace has prepend_scheme {scheme!r} and add_prefix_space {adds!r}")
    return str(scheme)


def _metaspace_normalizer(pre: dict[str, Any], normalizer: Any, tokens: list[dict[str, Any]]) -> dict[str, Any]:
    """Write a Metaspace that does not split as a normalizer: spaces become its mark, and one is prepended.

    ``first`` prepends it only at the start of the text, unless an added token or a space is there. 0.15 normalises the
    text between added tokens piece by piece, without a piece's position; so the tokens are matched after the normaliser
    (``normalized``), which then sees the whole text at once, and leaves them unchanged.
    """
    scheme, mark = _scheme(pre), pre.get("replacement")
    if normalizer is not None:
        raise _refuse("a Metaspace that does not split comes after a normalizer")
    if not (isinstance(mark, str) and len(mark) == 1):
        raise _refuse(f"the Metaspace has the replacement {mark!r}")
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": mark}
    # Without a normalizer it does not matter when added tokens are matched, as long as all are matched together.
    if len({bool(token.get("normalized")) for token in tokens}) > 1:
        raise _refuse("some added tokens are normalized, beside a Metaspace that does not split")
    for token in tokens:
        token["normalized"] = scheme == "first"
    if scheme == "never":
        return {"type": "Sequence", "normalizers": [blanks]}
    not_before = [f"[ {_escaped(mark)}]"]
    if scheme == "first":
        for token in tokens:
            _must_be_plain(token, mark)
            not_before.append(_escaped(token["content"]))
    prepend = {"type": "Prepend", "prepend": mark}
    unwanted = {"Regex": rf"\A{_escaped(mark)}(?={'|'.join(not_before)})"}
    return {
        "type": "Sequence",
        "normalizers": [prepend, {"type": "Replace", "pattern": unwanted, "content": ""}, blanks],
    }


def _must_be_plain(token: dict[str, Any], mark: str) -> None:
    content = token.get("content")
    is_plain = isinstance(content, str) and content and not {" ", mark} & set(content)
    if not is_plain or any(token.get(key) for key in ("single_word", "lstrip", "rstrip")):
        raise _refuse(f"the added token {content!r} contains or strips spaces, beside a Metaspace that does not split")


def _escaped(text: str) -> str:
    """Escape the special characters of Oniguruma, the library's regular expressions."""
    return re.sub(r"[\\^$.|?*+()\[\]{}\-&]", r"\\\g<0>", text)
