"""Two private marks in rendered text, and the tokenizer that reads them.

``HIDE`` stands inside what only looks like a special token, in a person's words: they stay text. ``CUT`` stands where
an answer begins that would change the prompt's last tokens: the two are tokenised apart, as a model is asked. Both are
noncharacters of Unicode, which no text may interchange. The marked tokenizer looks for special tokens, then drops the
one and splits at the other; offsets are those of the text with its marks.
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
    """Tell whether a text has to be read by the marked tokenizer."""
    return HIDE in text or CUT in text


def special_pattern(contents: Iterable[str]) -> re.Pattern[str]:
    """Find any of some special tokens, the longest first as the tokenizer does."""
    return re.compile("|".join(map(re.escape, sorted(filter(None, contents), key=len, reverse=True))) or "(?!)")


def hidden(text: str, special: re.Pattern[str]) -> str:
    """Put a mark behind the first character of each special token in a text, those that overlap included.

    A token of one character has no inside: it cannot be hidden, and no chat model has one.
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
    """Make the tokenizer that reads marked text: the same, with a step in front of its normaliser and its splitter."""
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    normalizer, splitter = content["normalizer"], content["pre_tokenizer"]
    unmark = {"type": "Replace", "pattern": {"String": HIDE}, "content": ""}
    split = {"type": "Split", "pattern": {"String": CUT}, "behavior": "Removed", "invert": False}
    content["normalizer"] = {"type": "Sequence", "normalizers": [unmark, *filter(None, [normalizer])]}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, *filter(None, [splitter])]}
    for token in content["added_tokens"]:
        if token["special"]:  # or it would be found behind the normaliser too, where the mark is gone
            token["normalized"] = False
    return Tokenizer.from_str(json.dumps(content))


def harmless(text: str, special: re.Pattern[str]) -> str | None:
    """Return a marked text without its marks and without what they hid, for both tokenizers to read; None for none."""
    plain = re.sub(f".{HIDE}", _FILLER, text, flags=re.DOTALL).replace(CUT, "")
    meant = special.findall(text)
    return plain if special.findall(plain) == meant else None
