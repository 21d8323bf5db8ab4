"""Recorded facts: frozen dataclasses written as JSON, and rebuilt with each fact checked by its field's annotation.

Standard library only, for Python 3.9 and later.
"""

from __future__ import annotations

import json
import sys
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any, TypeVar

from kit.cli.screen import one_line

SCHEMA_VERSION = 1
_NO_SIZE = 2**63
_Facts = TypeVar("_Facts")


def to_json(facts: Any) -> str:
    """Serialise a machine's or an environment's facts under its class's name, for ``from_mapping``."""
    return json.dumps({"schema_version": SCHEMA_VERSION, type(facts).__name__.lower(): asdict(facts)}, indent=2) + "\n"


def from_mapping(cls: type[_Facts], data: Any, command: str) -> _Facts:
    """Rebuild what ``command`` recorded.

    Raises:
        ValueError: It is not such a record, or a fact is missing, unknown or of the wrong type; the message names it.
    """
    name = cls.__name__.lower()
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION or name not in data:
        article = "an" if name[0] in "aeiou" else "a"
        raise ValueError(f"not {article} {name} recorded with `{command}` (schema_version {SCHEMA_VERSION})")
    return rebuild(cls, data[name], name)


def rebuild(cls: type[_Facts], data: Any, where: str) -> _Facts:
    """Rebuild a part of a record.

    Raises:
        ValueError: A fact is missing, unknown or of the wrong type; the message names it.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where} is {_shown(data)}; a JSON object is needed")  # noqa: TRY004 - the record is at fault
    known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    for name in data:
        if name not in known:
            raise ValueError(f"{where}.{name} is not a known fact; known are {', '.join(known)}")
    values: dict[str, Any] = {}
    for name, item in known.items():
        if name in data:
            values[name] = _value(str(item.type), data[name], f"{where}.{name}", vars(sys.modules[cls.__module__]))
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"{where}.{name} is missing")
    try:
        return cls(**values)
    except ValueError as exc:
        raise ValueError(f"{where}.{exc}") from exc


def _value(kind: str, value: Any, where: str, names: dict[str, Any]) -> Any:
    """Check one fact against its annotation, which ``from __future__ import annotations`` keeps as text."""
    kind, optional, _ = kind.partition(" | None")
    if (optional and value is None) or kind == "Any":
        return value
    if is_dataclass(names.get(kind)):
        return rebuild(names[kind], value, where)
    if kind.startswith("tuple["):
        if not isinstance(value, list) or (kind == "tuple[int, int]" and len(value) != 2):  # noqa: PLR2004 - a pair
            raise ValueError(f"{where} is {_shown(value)}; a list is needed (two numbers for a version)")
        inner = kind[len("tuple[") :].partition(",")[0]
        return tuple(_value(inner, item, f"{where}[{position}]", names) for position, item in enumerate(value))
    if kind.startswith("dict["):
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {_shown(value)}; a JSON object is needed")
        inner = kind[:-1].rpartition(" ")[2]
        return {name: _value(inner, item, f"{where}.{name}", names) for name, item in value.items()}
    fits, words = {
        "int": (type(value) is int and 0 <= value < _NO_SIZE, "a non-negative integer"),
        "float": (type(value) in (int, float) and abs(value) < _NO_SIZE, "a number"),
        # Control characters would reach the terminal.
        "str": (isinstance(value, str) and value == one_line(value), "printable text"),
        "bool": (isinstance(value, bool), "true or false"),
    }[kind]
    if not fits:
        raise ValueError(f"{where} is {_shown(value)}; {words} is needed")
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value)
    limit = 40
    return text if len(text) <= limit else text[: limit - 1] + "…"
