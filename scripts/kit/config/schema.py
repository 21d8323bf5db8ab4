"""The Cerberus schema, made from the declared keys (``kit.config.keys``): their types, rules and meanings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from types import UnionType
from typing import Any, get_args, get_type_hints

from kit.config.settings import Settings

# No line breaks, no control characters, no blanks at either end: text that survives a log line and a file name.
_TEXT = r"(?!\s)[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+(?<!\s)\Z"
_TYPES: dict[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number", "check_with": "finite"},
    str: {"type": "string"},
    tuple[str, ...]: {"type": "list"},
}


def _key(declared: Field[Any], hint: Any) -> dict[str, Any]:
    is_nullable = isinstance(hint, UnionType)
    kind = get_args(hint)[0] if is_nullable else hint
    meta, rules = declared.metadata["meta"], declared.metadata["rules"]
    if meta["or_auto"]:
        rules = {"type": "switch", "allowed": [True, False, "auto"]}
    elif kind is str and not rules:
        rules = {"regex": _TEXT}
    rule = {**_TYPES[kind], **rules, "meta": meta}
    if declared.default is MISSING:
        return {**rule, "required": True}
    default = declared.default
    return {**rule, "default": list(default) if isinstance(default, tuple) else default, "nullable": is_nullable}


def _section(section: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(section)
    declared = {each.name: _key(each, hints[each.name]) for each in fields(section)}
    return {"type": "dict", "schema": declared, "meta": {"meaning": section.__doc__}}


SCHEMA: dict[str, dict[str, Any]] = {name: _section(section) for name, section in get_type_hints(Settings).items()}


def keys() -> dict[str, dict[str, Any]]:
    """Return every key's rules by dotted path, in the order of their declaration."""
    return {f"{section}.{key}": rule for section, body in SCHEMA.items() for key, rule in body["schema"].items()}


def keys_with(mark: str) -> list[str]:
    """Return the dotted paths that are declared with a mark, such as ``to_trainer``: see ``kit.config.declaration``."""
    return [path for path, rule in keys().items() if rule["meta"][mark]]


def required_keys() -> list[str]:
    """Return the dotted paths without a default."""
    return [path for path, rule in keys().items() if rule.get("required")]


def with_defaults(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Complete values by dotted path that were written down before some keys were there: those had their defaults."""
    return {**{path: rule["default"] for path, rule in keys().items() if "default" in rule}, **recorded}


def defaults() -> dict[str, dict[str, Any]]:
    """Return the defaults by section and key; required keys are absent. Lists are fresh copies."""
    return completed({})


def completed(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return values by section and key: the given ones of known keys, and the defaults of the others."""
    filled: dict[str, dict[str, Any]] = {section: {} for section in SCHEMA}
    for path, rule in keys().items():
        section, key = path.split(".")
        body = given.get(section)
        if isinstance(body, dict) and key in body:
            filled[section][key] = body[key]
        elif "default" in rule:
            value = rule["default"]
            filled[section][key] = list(value) if isinstance(value, list) else value
    return filled
