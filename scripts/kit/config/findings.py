"""Findings about a key: what was found, what is allowed, and what was likely meant."""

from __future__ import annotations

import difflib
from typing import Any

from kit.cli.findings import Finding, error
from kit.config import schema
from kit.config.validator import Violation, describe, show, show_key
from kit.config.yaml_reader import plain_scalar

COMMAND_LINE = "command line"
_LONGEST_KEY = 80  # characters of an unknown key in a message


def finding_of(violation: Violation, where: str) -> Finding:
    """Turn one violation of the schema into a finding at its place."""
    path = violation.path
    if violation.kind == "unknown":
        return unknown_key(path, where)
    dotted = ".".join(path)
    rule = schema.SCHEMA[path[0]] if len(path) == 1 else schema.SCHEMA[path[0]]["schema"][path[1]]
    allowed = describe(rule)
    if violation.kind == "missing":
        fix = f"add `{path[1]}: …` under `{path[0]}:`, or {dotted}=… on the command line"
        return error("config.missing_key", f"{dotted} is required and missing; it must be {allowed}", fix, where)
    message = f"{dotted} must be {allowed}; found {show(violation.value)}"
    return error("config.bad_value", message, _fix_for_value(dotted, rule, violation.value), where)


def unknown_key(path: tuple[str, ...], where: str) -> Finding:
    """Refuse a key the schema does not know, with the nearest right name and the section it belongs to."""
    shown = show_key(path)
    shown = shown if len(shown) <= _LONGEST_KEY else f"{shown[:_LONGEST_KEY]}…"
    near = _nearest(path)
    section, _, key = near.rpartition(".")
    if not near:
        fix = "delete it; `python scripts/config_loader.py configs/training_config.yaml` lists every key"
    elif section and where != COMMAND_LINE and (len(path) == 1 or path[0] != section):
        fix = f"did you mean {near}? It belongs under `{section}:` as `{key}:`"
    else:
        fix = f"did you mean {near}?"
    return error("config.unknown_key", f"{shown} is not a configuration key", fix, where)


def _fix_for_value(dotted: str, rule: dict[str, Any], value: Any) -> str:
    fix = f"the default is {rule['default']}" if rule.get("default") is not None else f"correct {dotted}"
    if rule["type"] == "dict":
        fix = f"put keys under `{dotted}:`, or delete the line"
    elif rule["type"] == "switch":
        fix = (isinstance(value, str) and _unquoted(value, rule["type"])) or "choose from true, false, auto"
    elif allowed := (rule["schema"] if rule["type"] == "list" else rule).get("allowed"):
        fix = _nearest_choice(allowed, value if isinstance(value, list) else [value])
    elif rule["type"] == "string" and isinstance(value, bool | int | float):
        fix = "put the value in quotes"
    elif rule["type"] != "string" and isinstance(value, str):
        fix = _unquoted(value, rule["type"]) or fix
    elif rule["type"] == "integer" and isinstance(value, float) and value.is_integer():
        fix = f"write {int(value)}"
    return fix


def _unquoted(text: str, kind: str) -> str:
    if isinstance(plain_scalar(text), bool | int | float):
        return "remove the quotes"
    word = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower())
    return f"write {word}" if word and kind in {"boolean", "switch"} else ""


def _nearest_choice(allowed: list[str], words: list[Any]) -> str:
    if len(words) > len({str(word) for word in words}):
        return "name each once"
    wrong = next((str(word) for word in words if word not in allowed), "")
    near = difflib.get_close_matches(wrong.lower(), allowed, n=1)
    return f"did you mean {near[0]}?" if near else f"choose from {', '.join(allowed)}"


def _nearest(path: tuple[str, ...]) -> str:
    """Return the dotted key, or the section, that was most likely meant; empty where nothing is near."""
    known = schema.keys()
    dotted, name = ".".join(path), path[-1].rpartition(".")[2]
    if dotted in known:
        return dotted
    words = {word: key for key, rule in known.items() for word in rule["meta"]["also_known_as"]}
    words |= {key.split(".")[1]: key for key in known}
    if name in words:
        return words[name]
    if len(path) == 1:
        section = difflib.get_close_matches(name, list(schema.SCHEMA), n=1)
        if section:
            return section[0]
    beside = [word for word, key in words.items() if len(path) > 1 and key.startswith(f"{path[0]}.")]
    near = difflib.get_close_matches(name, beside, n=1) or difflib.get_close_matches(name, list(words), n=1)
    return words[near[0]] if near else ""
