"""Two private marks in rendered text, and the tokenizer that reads them.

``HIDE`` goes inside user text that looks like a special token, so that it stays text. ``CUT`` goes where an answer
begins that would change the prompt's last tokens, so that the two are tokenised separately, as at inference. Both are
Unicode noncharacters, which text may not contain. The marked tokenizer matches special tokens, then drops ``HIDE`` and
splits at ``CUT``; offsets count the marks.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDE, CUT = "\ufdd0", "\ufdd1"
_FILLER = "x"


def is_marked(text: str) -> bool:
    """Tell whether a text needs the marked tokenizer."""
    return HIDE in text or CUT in text


def special_pattern(contents: Iterable[str]) -> re.Pattern[str]:
    """Match any of some special tokens, the longest first as the tokenizer does."""
    return re.compile("|".join(map(re.escape, sorted(filter(None, contents), key=len, reverse=True))) or "(?!)")


def hidden(text: str, special: re.Pattern[str]) -> str:
    """Put ``HIDE`` after the first character of each special token in a text, overlapping ones included.

    A one-character token cannot be hidden; no chat model has one.
    """
    at = 0
    pieces = []
    found = special.search(text)
    while found:
        behind = found.start() + 1
        if len(found[0]) > 1:
            pieces += [text[at:behind], HIDE]
            at = behind
        found = special.search(text, behind)
    return "".join([*pieces, text[at:]]) if pieces else text


def marked_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """Make the tokenizer for marked text: the same, with a step before its normaliser and its splitter."""
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    normalizer, splitter = content["normalizer"], content["pre_tokenizer"]
    unmark = {"type": "Replace", "pattern": {"String": HIDE}, "content": ""}
    split = {"type": "Split", "pattern": {"String": CUT}, "behavior": "Removed", "invert": False}
    content["normalizer"] = {"type": "Sequence", "normalizers": [unmark, *filter(None, [normalizer])]}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, *filter(None, [splitter])]}
    for token in content["added_tokens"]:
        if token["special"]:  # otherwise matched again after the normaliser, where the mark is gone
            token["normalized"] = False
    return Tokenizer.from_str(json.dumps(content))


def harmless(text: str, special: re.Pattern[str]) -> str | None:
    """Return a marked text without marks and hidden text, for both tokenizers to read; None if that changes tokens."""
    plain = re.sub(f".{HIDE}", _FILLER, text, flags=re.DOTALL).replace(CUT, "")
    meant = special.findall(text)
    return plain if special.findall(plain) == meant else None
