"""Validate values against the schema, and describe each violation in one sentence.

Cerberus decides; the words are ours, made from the same rules, so that a message can never promise another range.
"""

from __future__ import annotations

import functools
import math
from datetime import date
from typing import Any, NamedTuple

from cerberus import TypeDefinition, Validator
from cerberus.errors import REQUIRED_FIELD, UNKNOWN_FIELD

from kit.config.schema import SCHEMA

_LONGEST_SHOWN = 60  # characters of a found value in a message


class Violation(NamedTuple):
    """One value that breaks the schema: ``kind`` is ``unknown``, ``missing`` or ``value``."""

    path: tuple[str, ...]
    kind: str
    value: Any


class _Validator(Validator):  # type: ignore[misc] # Cerberus is untyped
    """Cerberus with the rules it lacks; the docstrings below are read by Cerberus itself."""

    # To Cerberus true is an integer, as it is to Python.
    types_mapping = Validator.types_mapping | {
        "integer": TypeDefinition("integer", (int,), (bool,)),
        "switch": TypeDefinition("switch", (bool, str), ()),
    }

    def _validate_above(self, above: float, field: str, value: Any) -> None:
        """{'type': 'number'}"""  # noqa: D415 - Cerberus reads the constraint's schema here
        # Cerberus goes on to the rules of ours after it has refused a null.
        if value is not None and value <= above:
            self._error(field, f"must be above {above}")

    def _validate_unique(self, unique: bool, field: str, value: Any) -> None:
        """{'type': 'boolean'}"""  # noqa: D415 - Cerberus reads the constraint's schema here
        if unique and value is not None and any(item in value[:index] for index, item in enumerate(value)):
            self._error(field, "holds an item twice")

    def _check_with_day(self, field: str, value: Any) -> None:
        try:
            date.fromisoformat(value)
        except (TypeError, ValueError):
            if value is not None:
                self._error(field, "must be a day")

    def _check_with_finite(self, field: str, value: Any) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            self._error(field, "must be finite")


@functools.cache
def _validator() -> _Validator:
    """Make the validator once: it takes longer to build than to validate."""
    return _Validator(SCHEMA)


def violations(values: dict[str, Any]) -> list[Violation]:
    """Return what breaks the schema, one violation a key. A missing section counts as an empty one."""
    validator = _validator()
    # Without normalisation: Cerberus would put the default in place of a null, silently.
    validator.validate({**{section: {} for section in SCHEMA}, **values}, normalize=False)
    found: dict[tuple[str, ...], Violation] = {}
    pending = list(validator._errors)  # noqa: SLF001 - the public form has lost the codes and the values
    while pending:
        problem = pending.pop(0)
        path = tuple(str(part) for part in problem.document_path)[:2]
        children = problem.child_errors if problem.is_group_error else None
        if children and len(path) == 1:
            pending[:0] = children
            continue
        kind = {UNKNOWN_FIELD.code: "unknown", REQUIRED_FIELD.code: "missing"}.get(problem.code, "value")
        value = values.get(path[0])
        if len(path) > 1 and isinstance(value, dict):
            value = value.get(path[1])
        found.setdefault(path, Violation(path, kind, value))
    return list(found.values())


def describe(rule: dict[str, Any]) -> str:
    """Say what a key may hold: ``an integer from 1 to 1024``."""
    words = _describe_type(rule)
    return f"{words}, or null" if rule.get("nullable") else words


def _describe_type(rule: dict[str, Any]) -> str:
    kind = rule["type"]
    if kind == "dict":
        words = f"a section with the keys {', '.join(rule['schema'])}"
    elif kind == "boolean":
        words = "true or false"
    elif kind == "switch":
        words = "true, false or auto"
    elif kind == "list":
        words = f"a non-empty list of {', '.join(rule['schema']['allowed'])}, each at most once"
    elif "allowed" in rule:
        words = f"one of {', '.join(rule['allowed'])}"
    elif kind == "string":
        words = str(rule["meta"]["form"])
    else:
        words = _describe_number(rule)
    return words


def _describe_number(rule: dict[str, Any]) -> str:
    whole = rule["type"] == "integer"
    noun = "an integer" if whole else "a number"
    if "above" in rule:
        return f"{noun} above {rule['above']:g} and up to {rule['max']:g}"
    but = f" other than {', '.join(str(value) for value in rule['forbidden'])}" if "forbidden" in rule else ""
    low, high = (str(rule[bound]) if whole else f"{rule[bound]:g}" for bound in ("min", "max"))
    return f"{noun} from {low} to {high}{but}"


def show(value: Any) -> str:
    """Show a found value as a person wrote it, its kind in front where that is what surprises."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a section of keys"
    if isinstance(value, int) and value.bit_length() > 4 * _LONGEST_SHOWN:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    text = text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"
    if isinstance(value, str):
        return f"the text {text}"
    return f"the list {text}" if isinstance(value, list) else text


def show_key(path: tuple[str, ...]) -> str:
    """Show a path of keys; what a terminal could not print, or would obey, is escaped."""
    dotted = ".".join(path)
    return dotted if dotted.isprintable() else repr(dotted)[1:-1]
