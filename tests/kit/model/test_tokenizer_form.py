"""What tokenizers 0.15 is given is read there as the newer library reads the file itself, or is refused."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="needs the libraries: make setup")

import tokenizers

from kit.cli.interpreter import PROJECT_ROOT
from kit.model import tokenizer_form
from kit.model.tokenizer_form import FormError, older_form

_REFERENCE = PROJECT_ROOT / ".venv-reference" / "bin" / "python"
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_VOCABULARY = [
    *("<unk>", "<s>", "</s>", "[A+]", "a", "b", "c", " ", "▁", "▁▁", "▁a", "ab", "abc", "bc", "a b", "é", "\n"),
    *("Ġ", "Ġa", "ca", "<", ">"),
]
_MERGES = ["▁ ▁", "▁ a", "a b", "ab c", "b c", "Ġ a", "c a"]
_METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
_LEGACY = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ],
}
_SENTENCEPIECE = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_PATTERN = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _token(number: int, content: str, **changes: object) -> dict[str, object]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **flags, "special": True, **changes}


def _file(**changes: Any) -> dict[str, Any]:
    """A small tokenizer.json in the newest form; ``model__`` and ``tokens__`` change its parts."""
    model = {
        "type": "BPE",
        **dict.fromkeys(("dropout", "continuing_subword_prefix", "end_of_word_suffix")),
        **dict.fromkeys(("fuse_unk", "byte_fallback"), True),
        "ignore_merges": False,
        "unk_token": "<unk>",
        "vocab": {token: number for number, token in enumerate([*_VOCABULARY, *_BYTES])},
        "merges": [pair.split(" ") for pair in _MERGES],
    }
    tokens = [_token(number, _VOCABULARY[number]) for number in range(4)]
    for key, value in [*changes.items()]:
        if key.startswith("model__"):
            model[key.removeprefix("model__")] = changes.pop(key)
        elif key.startswith("tokens__"):
            tokens = [{**token, key.removeprefix("tokens__"): value} for token in tokens]
            del changes[key]
    return {
        "version": "1.0",
        **dict.fromkeys(("truncation", "padding", "normalizer", "post_processor")),
        "added_tokens": tokens,
        "pre_tokenizer": _METASPACE,
        "decoder": _SENTENCEPIECE,
        "model": model,
        **changes,
    }


def _texts() -> list[str]:
    """Texts in which everything meets everything: added tokens, blanks, marks, at both ends and in between."""
    draw = random.Random(5)  # noqa: S311 - texts, no secrets
    pieces = [*"abc ▁\né<1.🦙", "ab", "  ", "'s", "s>", "<s>", "</s>", "<unk>", "[A+]"]
    return ["", *("".join(draw.choices(pieces, k=draw.randint(1, 8))) for _ in range(400))]


FORMS: dict[str, dict[str, Any]] = {
    "today's": _file(),
    "today's, tokens normalized": _file(tokens__normalized=True),
    "today's, no added tokens": _file(added_tokens=[]),
    "always": _file(pre_tokenizer={**_METASPACE, "prepend_scheme": "always"}),
    "always, tokens normalized": _file(
        pre_tokenizer={**_METASPACE, "prepend_scheme": "always"}, tokens__normalized=True
    ),
    "always, tokens that take blanks in": _file(
        pre_tokenizer={**_METASPACE, "prepend_scheme": "always"}, tokens__lstrip=True, tokens__rstrip=True
    ),
    "never": _file(pre_tokenizer={**_METASPACE, "prepend_scheme": "never"}),
    "another mark": _file(pre_tokenizer={**_METASPACE, "replacement": "b"}),
    "a mark that a pattern would read": _file(pre_tokenizer={**_METASPACE, "replacement": "."}),
    "splits": _file(pre_tokenizer={**_METASPACE, "prepend_scheme": "always", "split": True}),
    "splits, never in front": _file(pre_tokenizer={**_METASPACE, "prepend_scheme": "never", "split": True}),
    "splits, as long ago": _file(pre_tokenizer={"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}),
    "decodes by Metaspace": _file(decoder={**_METASPACE, "split": True}),
    "decodes by Metaspace, never in front": _file(decoder={**_METASPACE, "prepend_scheme": "never"}),
    "legacy": _file(pre_tokenizer=None, normalizer=_LEGACY, model__merges=_MERGES),
    "bytes": _file(pre_tokenizer=_BYTE_LEVEL, decoder=_BYTE_LEVEL, post_processor=_BYTE_LEVEL, model__unk_token=None),
    "bytes of a pattern's pieces": _file(
        normalizer={"type": "NFC"},
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": _PATTERN}, "behavior": "Isolated", "invert": False},
                {**_BYTE_LEVEL, "use_regex": False},
            ],
        },
        decoder=_BYTE_LEVEL,
    ),
    "digits and punctuation": _file(
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Punctuation", "behavior": "Contiguous"},
                {"type": "Digits", "individual_digits": True},
                {"type": "WhitespaceSplit"},
            ],
        }
    ),
    **{
        f"unknown characters: fused {fused}, as bytes {as_bytes}": _file(
            pre_tokenizer=None, normalizer=_LEGACY, model__fuse_unk=fused, model__byte_fallback=as_bytes
        )
        for fused, as_bytes in itertools.product((True, False), repeat=2)
    },
    **{
        kind: _file(pre_tokenizer=None, normalizer={"type": kind})
        for kind in ("NFC", "NFD", "NFKC", "NFKD", "StripAccents")
    },
    "strip": _file(pre_tokenizer=None, normalizer={"type": "Strip", "strip_left": True, "strip_right": True}),
}
_ENCODE = """
import json, sys
from tokenizers import Tokenizer
found = {}
told = json.load(sys.stdin)
for name, text in told["forms"].items():
    tokenizer, found[name] = Tokenizer.from_str(text), []
    for each in told["texts"]:
        encoding = tokenizer.encode(each, add_special_tokens=False)
        decoded = [tokenizer.decode(encoding.ids, skip_special_tokens=skip) for skip in (True, False)]
        found[name].append([encoding.ids, [list(pair) for pair in encoding.offsets], *decoded])
print(json.dumps(found))
"""


def _encoded(text: str) -> list[list[Any]]:
    tokenizer, found = tokenizers.Tokenizer.from_str(text), []
    for each in _texts():
        encoding = tokenizer.encode(each, add_special_tokens=False)
        decoded = [tokenizer.decode(encoding.ids, skip_special_tokens=skip) for skip in (True, False)]
        found.append([encoding.ids, [list(pair) for pair in encoding.offsets], *decoded])
    return found


@pytest.mark.parametrize("name", FORMS)
def test_the_older_form_is_the_same_tokenizer_to_the_newer_library(name: str) -> None:
    text = json.dumps(FORMS[name])
    assert _encoded(older_form(text).text) == _encoded(text)


@pytest.mark.stacks
@pytest.mark.skipif(not _REFERENCE.exists(), reason="there is no .venv-reference: make setup STACK=reference")
def test_the_older_library_makes_of_the_older_form_what_the_newer_makes_of_the_file() -> None:
    told = {
        "forms": {name: older_form(json.dumps(content)).text for name, content in FORMS.items()},
        "texts": _texts(),
    }
    done = subprocess.run(
        [str(_REFERENCE), "-c", _ENCODE], input=json.dumps(told), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name for name, content in FORMS.items() if found[name] != _encoded(json.dumps(content))} == set()


def test_a_file_that_is_read_as_it_stands_is_handed_on_untouched() -> None:
    text = json.dumps(_file(pre_tokenizer=None, normalizer=_LEGACY, model__merges=_MERGES), indent=3)
    assert older_form(text) == tokenizer_form.OlderForm(text)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", '{"model": 5}', "[" * 20_000])
def test_what_is_no_tokenizer_is_left_to_the_library(text: str) -> None:
    assert older_form(text).text == text


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "ignore_merges": (_file(model__ignore_merges=True), "BPE has ignore_merges True"),
    "dropout": (_file(model__dropout=0.1), "BPE has dropout 0.1"),
    "suffix": (_file(model__end_of_word_suffix="</w>"), "BPE has end_of_word_suffix '</w>'"),
    "model key": (_file(model__later=1), "the model BPE has the key 'later'"),
    "model": (_file(model={"type": "Unigram", "vocab": []}), "the model is 'Unigram'"),
    "top key": (_file(later=1), "tokenizer.json has the key 'later'"),
    "token key": (_file(tokens__later=1), "an added token has the key 'later'"),
    "merge with a blank": (_file(model__merges=[["a", "b"], ["a b", "c"]]), r"the pair \['a b', 'c'\]"),
    "merge read as a version": (_file(model__merges=[["#version:", "b"]]), "the pair"),
    "merge of three": (_file(model__merges=[["a", "b", "c"]]), "its merges contain"),
    "mixed merges": (_file(model__merges=[["a", "b"], "b c"]), "its merges contain"),
    "normalizer": (_file(pre_tokenizer=None, normalizer={"type": "ByteLevel"}), "the normalizer is 'ByteLevel'"),
    "normalizer key": (_file(pre_tokenizer=None, normalizer={"type": "NFC", "later": 1}), "NFC has the key 'later'"),
    "inner": (_file(decoder={"type": "Sequence", "decoders": [{"type": "Later"}]}), "the decoder is 'Later'"),
    "sequence key": (_file(decoder={"type": "Sequence", "decoders": [], "later": 1}), "Sequence has the key 'later'"),
    "type that is none": (_file(decoder={"type": ["Fuse"]}), "the decoder is"),
    "post-processor": (_file(post_processor={"type": "Later"}), "the post_processor is 'Later'"),
    "splits at the first": (_file(pre_tokenizer={**_METASPACE, "split": True}), "prepend_scheme 'first' that splits"),
    "first, as 0.15 writes it": (
        _file(pre_tokenizer={**_METASPACE, "add_prefix_space": True, "split": True}),
        "prepend_scheme 'first' that splits",
    ),
    "among others": (
        _file(pre_tokenizer={"type": "Sequence", "pretokenizers": [{**_METASPACE, "prepend_scheme": "never"}]}),
        "or is in a Sequence",
    ),
    "contradicts itself": (_file(pre_tokenizer={**_METASPACE, "add_prefix_space": False}), "add_prefix_space False"),
    "another scheme": (_file(pre_tokenizer={**_METASPACE, "prepend_scheme": "later"}), "prepend_scheme 'later'"),
    "metaspace key": (_file(pre_tokenizer={**_METASPACE, "later": 1}), "the Metaspace has the key 'later'"),
    "no mark": (_file(pre_tokenizer={**_METASPACE, "replacement": ""}), "the replacement ''"),
    "behind a normalizer": (_file(normalizer={"type": "NFC"}), "comes after a normalizer"),
    "token with a blank": (_file(added_tokens=[_token(1, "<s >")]), "the added token '<s >' contains or strips spaces"),
    "token with a mark": (_file(added_tokens=[_token(1, "▁<s>")]), "contains or strips spaces"),
    "token that strips": (_file(tokens__rstrip=True), "the added token '<unk>' contains or strips spaces"),
    "empty token": (_file(added_tokens=[_token(1, "")]), "contains or strips spaces"),
    "tokens in two places": (
        _file(added_tokens=[_token(1, "<s>"), _token(2, "</s>", normalized=True)]),
        "some added tokens are normalized",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_read_otherwise_is_refused(name: str) -> None:
    content, message = REFUSED[name]
    with pytest.raises(FormError, match=message) as caught:
        older_form(json.dumps(content))
    assert str(caught.value).endswith(
        "which the reference stack's tokenizers library would read differently; use the current stack (STACK=current), "
        "or a model.revision whose tokenizer.json is older"
    )


# What is tokenised begins with an added token, as rendered conversations do.
RENDERED = {name: FORMS[name] for name in ("today's", "today's, tokens normalized", "always", "legacy", "bytes")}


def _rendered_texts() -> list[str]:
    return [f"{token}{text}" for text in _texts() for token in ("<s>", "[A+]")]


@pytest.mark.parametrize("name", RENDERED)
def test_a_plainer_form_is_the_same_where_an_added_token_begins(name: str) -> None:
    text = json.dumps(RENDERED[name])
    form = older_form(text, rendered=True)
    assert form.begins_with_token == name.startswith("today's")
    assert not any(token["normalized"] for token in json.loads(form.text)["added_tokens"])
    mine, own = (tokenizers.Tokenizer.from_str(each) for each in (form.text, text))
    for each in _rendered_texts():
        ours, theirs = (tokenizer.encode(each, add_special_tokens=False) for tokenizer in (mine, own))
        assert (ours.ids, ours.offsets) == (theirs.ids, theirs.offsets)
