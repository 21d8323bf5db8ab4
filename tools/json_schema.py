"""The Cerberus schema as JSON Schema 2020-12, for editors that complete and check a configuration while it is typed."""

from __future__ import annotations

import re
from typing import Any

from kit.config import schema
from kit.config.platforms import PLATFORMS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# The end of the text in both Python's and ECMAScript's dialect: to Python `$` is also before a last line break, and
# ECMAScript has no `\Z`.
_END = r"(?![\s\S])"
_TYPES: dict[str, str | list[str]] = {"dict": "object", "list": "array", "switch": ["boolean", "string"]}


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration file.

    What it cannot say, the kit's own validation does: to JSON ``4.0`` is an integer, and it knows no NaN.
    """
    sections = {name: _section(body) for name, body in schema.SCHEMA.items()}
    needed = [name for name, body in sections.items() if body.get("required")]
    return {
        "$schema": DIALECT,
        "title": "mistral-qlora-kit training configuration",
        "description": "Generated from scripts/kit/config/keys.py by `make docs`; do not edit.",
        "type": "object",
        "properties": sections,
        "required": needed,
        "additionalProperties": False,
    }


def _section(body: dict[str, Any]) -> dict[str, Any]:
    keys = body["schema"]
    needed = [key for key, rule in keys.items() if rule.get("required")]
    return {
        "description": body["meta"]["meaning"],
        "type": "object",
        "properties": {key: _key(rule) for key, rule in keys.items()},
        **({"required": needed} if needed else {}),
        "additionalProperties": False,
    }


def _key(rule: dict[str, Any]) -> dict[str, Any]:
    platforms = rule["meta"]["platforms"]
    only = "" if platforms == PLATFORMS else f" Has an effect on {', '.join(platforms)} only."
    shown: dict[str, Any] = {"description": rule["meta"]["meaning"] + only}
    if "default" in rule:
        shown["default"] = rule["default"]
    return {**shown, **_rules(rule)}


def _rules(rule: dict[str, Any]) -> dict[str, Any]:
    kind = _TYPES.get(rule["type"], rule["type"])
    rules: dict[str, Any] = {"type": [kind, "null"] if rule.get("nullable") else kind}
    if "allowed" in rule:
        rules["enum"] = [*rule["allowed"], *([None] if rule.get("nullable") else [])]
    if "regex" in rule:
        rules["pattern"] = _pattern(rule["regex"])
    if "forbidden" in rule:
        rules["not"] = {"enum": list(rule["forbidden"])}
    names = {"min": "minimum", "max": "maximum", "above": "exclusiveMinimum", "minlength": "minItems"}
    rules |= {name: rule[ours] for ours, name in names.items() if ours in rule}
    if rule.get("unique"):
        rules["uniqueItems"] = True
    if rule["type"] == "list":
        rules["items"] = _rules(rule["schema"])
    return rules


def _pattern(regex: str) -> str:
    r"""Write a pattern for any dialect: anchored, the end spelt out, ``\x1f`` as ``\u001f``."""
    return "^" + re.sub(r"\\x([0-9a-f]{2})", r"\\u00\1", regex).replace(r"\Z", _END)
