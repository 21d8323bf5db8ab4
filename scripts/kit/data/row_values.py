"""Values of a data row: read, shown safely on a terminal, or rejected."""

from __future__ import annotations

import difflib
import functools
import itertools
import unicodedata
from typing import Any

NOTHING: tuple[Any, ...] = (None, "", [], {})  # values that count as absent
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})  # Unicode categories of spaces, controls and direction marks
_NAME_SHOWN = 40  # characters of a name from the data
_NAMES_COMPARED = 64  # with a missing name


class RowError(ValueError):
    """Why a row cannot be trained on, as the row's predicate, with the fix."""

    def __init__(self, message: str, fix: str) -> None:
        """Keep message and fix apart, as findings show them."""
        super().__init__(message)
        self.fix = fix


def keyed_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object of its pairs; of a duplicate key Python's own decoder silently keeps the last.

    Raises:
        RowError: A key appears twice.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise RowError(f"has the key {shown(twice)} twice in one object", "keep one of them")
    return made


def text_of(row: dict[str, Any], key: str) -> str:
    """Return one text of a row or a turn.

    Raises:
        RowError: It is missing, not text, or contains half a character.
    """
    value = row.get(key)
    if value is None:
        names = (name for name in row if name != key and isinstance(name, str) and len(name) <= _NAME_SHOWN)
        meant = near(key, tuple(itertools.islice(names, _NAMES_COMPARED)))
        hint = f"rename {shown_key(meant)} to {shown_key(key)}, or " if meant else ""
        raise RowError(f"has no {shown_key(key)}", f"{hint}add {shown_key(key)}, or remove the row")
    if not isinstance(value, str):
        name = shown_key(key)
        raise RowError(f"has {name} that is {kind_of(value)}, not text", f"write {name} as a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise RowError(
            f"has half a character (a lone surrogate) in {shown_key(key)}", "write the whole character"
        ) from exc
    return value


def is_blank(text: str) -> bool:
    """Tell whether a text has no visible character."""
    return all(unicodedata.category(character) in _INVISIBLE for character in text)


def near(name: str, known: tuple[str, ...], cutoff: float = 0.6) -> str | None:
    """Return the known name, in lower case, that another may be a misspelling of."""
    return _near(name[:_NAME_SHOWN].casefold(), known, cutoff)


@functools.lru_cache(4096)
def _near(name: str, known: tuple[str, ...], cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), None)


def shown(name: str) -> str:
    """Quote a name from the data for the terminal: shortened, unprintable characters escaped."""
    return repr(name if len(name) <= _NAME_SHOWN else f"{name[:_NAME_SHOWN]}…")


def shown_key(name: str) -> str:
    """Show a key as it is if it is a plain word, otherwise quoted."""
    return name if name.isidentifier() and len(name) <= _NAME_SHOWN else shown(name)


def kind_of(value: Any) -> str:
    """Name a value's JSON kind."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    names |= {int: "a number", float: "a number", bytes: "binary"}
    return names.get(type(value)) or str(getattr(value, "kind", f"of type {type(value).__name__}"))
