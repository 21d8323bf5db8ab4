"""Likely secrets in text: detect-secrets' patterns, e-mail addresses and card numbers.

Findings give the place, the kind and the first characters, never the whole value.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# Detection by entropy, by the word "password" and by IP address finds something in every second row of prose or code.
_GUESSES = frozenset({"Base64HighEntropyString", "HexHighEntropyString", "KeywordDetector", "IPPublicDetector"})
# What every other pattern needs: a long word with a digit, a URL with a password, a key's first line, or the name of a
# service whose keys have no distinct form. Prose has none of these and is skipped at once.
_LONG_WORD = re.compile(r"(?<!\S)\S{12,}")
_NAMES = ("://", "private key", "softlayer", "cloudant", "ibm", "bluemix", "aws", "hooks.slack")
_DIGIT = re.compile(r"\d")
_EMAIL = re.compile(r"\b[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_THIRTEEN_DIGITS = re.compile(r"\d(?:[ -]?\d){12}")
_CARD = re.compile(r"(?<![\d.-])(?:\d[ -]?){12,18}\d(?![\d-])")
# First digits of the large issuers; without them one in ten long numbers would match.
_ISSUER = re.compile(r"4|5[1-5]|2[2-7]|3[47]|36|38|30[0-5]|6011|65|64[4-9]|35|62")
# Characters searched at once, and their overlap: some patterns take quadratic time or worse. A token has some hundreds.
_LONGEST_LINE, _OVERLAP = 1_000, 500
_SHOWN = 4
_SHORTEST_SHOWN = 12  # characters: of a shorter value even the first ones reveal too much


class Secret(NamedTuple):
    """One likely secret: its kind, and what may be shown."""

    kind: str
    masked: str


def find_secrets(text: str) -> list[Secret]:
    """Return the likely secrets in a text, each once, in a fixed order."""
    found: dict[tuple[str, str], None] = {}
    if "@" in text:
        found |= dict.fromkeys(("e-mail address", match.group()) for match in _EMAIL.finditer(text))
    if _THIRTEEN_DIGITS.search(text):
        found |= dict.fromkeys(("card number", number) for number in _cards(text))
    if _is_worth_a_look(text):
        for line in text.splitlines():
            for start in range(0, len(line), _LONGEST_LINE):
                found |= dict.fromkeys(_in_line(line[start : start + _LONGEST_LINE + _OVERLAP]))
    return [Secret(kind, mask(value)) for kind, value in found]


def mask(value: str) -> str:
    """Show the first characters of a value that is long enough."""
    return f"{value[:_SHOWN]}…" if len(value) >= _SHORTEST_SHOWN else "…"


def _is_worth_a_look(text: str) -> bool:
    lowered = text.lower()
    if any(name in lowered for name in _NAMES):
        return True
    return any(not match.group().isalpha() and _DIGIT.search(match.group()) for match in _LONG_WORD.finditer(text))


def _cards(text: str) -> Iterator[str]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        if _ISSUER.match(digits) and len(set(digits)) > 1 and luhn(digits):
            yield match.group()


def luhn(digits: str) -> bool:
    """Check a card number's last digit (ISO/IEC 7812-1, annex B)."""
    doubled = (int(digit) * 2 for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(number - 9 if number > 9 else number for number in doubled)) % 10 == 0  # noqa: PLR2004


def _in_line(line: str) -> Iterator[tuple[str, str]]:
    if not _is_worth_a_look(line):
        return
    for plugin in _plugins():
        for value in plugin.analyze_string(line):
            text = "".join(value) if isinstance(value, tuple) else str(value)
            if text:
                yield plugin.secret_type, text


@functools.cache
def _plugins() -> list[Any]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    plugins = get_mapping_from_secret_type_to_class().values()
    return [plugin() for plugin in plugins if plugin.__name__ not in _GUESSES]
