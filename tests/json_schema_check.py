"""JSON Schema 2020-12, as much of it as the configuration's schema uses; any other keyword is an error.

The locks hold no JSON Schema library, and an editor's own is not at hand in a test.
"""

from __future__ import annotations

import re
from typing import Any

_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
_SAYS_NOTHING = {"$schema", "title", "description", "default"}


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """Tell whether a value is valid under a schema."""
    return all(_holds(keyword, rule, schema, value) for keyword, rule in schema.items() if keyword not in _SAYS_NOTHING)


def _holds(keyword: str, rule: Any, schema: dict[str, Any], value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    checks = {
        "type": lambda: any(_is(kind, value) for kind in ([rule] if isinstance(rule, str) else rule)),
        "enum": lambda: any(type(value) is type(one) and value == one for one in rule),
        "not": lambda: not accepts(rule, value),
        "minimum": lambda: not is_number or value >= rule,
        "maximum": lambda: not is_number or value <= rule,
        "exclusiveMinimum": lambda: not is_number or value > rule,
        "pattern": lambda: not isinstance(value, str) or re.search(rule, value) is not None,
        "minItems": lambda: not isinstance(value, list) or len(value) >= rule,
        "uniqueItems": lambda: not isinstance(value, list) or all(one not in value[:i] for i, one in enumerate(value)),
        "items": lambda: not isinstance(value, list) or all(accepts(rule, item) for item in value),
        "required": lambda: not isinstance(value, dict) or set(rule) <= set(value),
        "properties": lambda: (
            not isinstance(value, dict) or all(accepts(rule[key], value[key]) for key in rule if key in value)
        ),
        "additionalProperties": lambda: not isinstance(value, dict) or set(value) <= set(schema["properties"]),
    }
    if keyword == "additionalProperties":
        assert rule is False
    return bool(checks[keyword]())


def _is(kind: str, value: Any) -> bool:
    if kind in {"integer", "number"}:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and (kind == "number" or isinstance(value, int) or value.is_integer())
    return isinstance(value, _TYPES[kind])
