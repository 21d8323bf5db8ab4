"""What a configuration says, worked out a second time: libyaml's events, and the schema's rules read word by word.

Shares with the kit's own reading the schema and nothing else, so that where the two differ one of them is wrong.
"""

from __future__ import annotations

import codecs
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from kit.config import schema
from kit.config.file import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Key = tuple[str, str]

_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[+-]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MODEL, _REVISION = ("model", "model_name_or_path"), ("model", "revision")
_LONGEST_NUMBER = 100  # characters; what is longer is text
_DEEPEST = 8


class Refusal(Exception):  # noqa: N818 - a verdict, not an error
    """The text is no configuration; the message says why."""


@dataclass(frozen=True)
class Scalar:
    """A value as written; ``is_plain`` where no quotes make it text."""

    text: str
    is_plain: bool


Node = Scalar | list["Node"] | dict[str, "Node"]


@dataclass
class Meaning:
    """Every key that is given, with its value and its line; the line is 0 on the command line."""

    values: dict[Key, Any] = field(default_factory=dict)
    lines: dict[Key, int] = field(default_factory=dict)


def meaning_of(raw: bytes, overrides: Sequence[str] = ()) -> Meaning:
    """Work out what a file and overrides say.

    Raises:
        Refusal: They must be refused.
    """
    lines: dict[tuple[str, ...], int] = {}
    sections = _document(_text(raw), lines)
    given: dict[Key, Node] = {}
    whole = {name: node for name, node in sections.items() if name in schema.SCHEMA}
    if len(whole) < len(sections):
        raise Refusal("there is a section that is none")
    overridden = [_override(text) for text in overrides]
    for name, node in whole.items():
        if isinstance(node, dict):
            for key, value in node.items():
                if key not in schema.SCHEMA[name]["schema"]:
                    raise Refusal(f"{name} has a key that is none: {key!r}")
                given[name, key] = value
        elif not (_is_null(node) and any(at[0] == name for at, _ in overridden)):
            raise Refusal(f"{name} is no section")
    given = _laid_over(given, dict(overridden))
    meaning = Meaning()
    for (name, key), node in given.items():
        meaning.values[name, key] = value_of(schema.SCHEMA[name]["schema"][key], node)
        meaning.lines[name, key] = 0 if (name, key) in dict(overridden) else lines[name, key]
    for dotted, rule in schema.keys().items():
        if rule.get("required") and tuple(dotted.split(".")) not in given:
            raise Refusal(f"{dotted} is missing")
    return meaning


def _laid_over(given: dict[Key, Node], overridden: dict[Key, Node]) -> dict[Key, Node]:
    """Lay overrides over a file's keys; a file's revision is one of the model it was written beside."""
    both = {**given, **overridden}
    if _worded(both.get(_MODEL)) != _worded(given.get(_MODEL)) and _REVISION not in overridden:
        both.pop(_REVISION, None)
    return both


def _worded(node: Node | None) -> Any:
    return node.text if isinstance(node, Scalar) else node


def value_of(rule: dict[str, Any], node: Node) -> Any:
    """Give a value the type its key asks for.

    Raises:
        Refusal: It is not what the key may hold.
    """
    if _is_null(node):
        if rule.get("nullable"):
            return None
        raise Refusal("a null where there must be something")
    kind = rule["type"]
    if kind == "list":
        if not isinstance(node, list) or len(node) < rule.get("minlength", 0):
            raise Refusal("no list, or too short a one")
        items = [_string(rule["schema"], item) for item in node]
        if len(set(items)) < len(items):
            raise Refusal("an item twice")
        return items
    if kind == "switch" and isinstance(node, Scalar) and node.is_plain and node.text in _BOOLEANS:
        return _BOOLEANS[node.text]
    if kind in {"string", "switch"}:
        return _string(rule, node)
    if not isinstance(node, Scalar) or not node.is_plain:
        raise Refusal(f"no plain word where {kind} is asked for")
    return _boolean(node.text) if kind == "boolean" else _number(rule, node.text)


def _boolean(text: str) -> bool:
    if text not in _BOOLEANS:
        raise Refusal("neither true nor false")
    return _BOOLEANS[text]


def _number(rule: dict[str, Any], text: str) -> float:
    kind = rule["type"]
    if len(text) > _LONGEST_NUMBER or not (_WHOLE if kind == "integer" else _DECIMAL).fullmatch(text):
        raise Refusal(f"no {kind}")
    value = int(text) if kind == "integer" else float(text)
    _check_range(rule, value)
    return value


def _check_range(rule: dict[str, Any], value: float) -> None:
    if not math.isfinite(value) or value in rule.get("forbidden", ()):
        raise Refusal("a number that is forbidden")
    if value < rule.get("min", -math.inf) or value > rule.get("max", math.inf) or value <= rule.get("above", -math.inf):
        raise Refusal("a number out of range")


def _string(rule: dict[str, Any], node: Node) -> str:
    if not isinstance(node, Scalar) or _is_typed(node):
        raise Refusal("no text")
    if "allowed" in rule and node.text not in rule["allowed"]:
        raise Refusal("none of what is allowed")
    if "regex" in rule and not re.match(rule["regex"], node.text):
        raise Refusal("text of another form")
    return node.text


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.is_plain and node.text in _NULL


def _is_typed(node: Scalar) -> bool:
    """Tell whether a plain word is a null, a boolean or a number instead of text."""
    if not node.is_plain:
        return False
    if node.text in _NULL or node.text in _BOOLEANS:
        return True
    is_number = _DECIMAL.fullmatch(node.text) or _NOT_FINITE.fullmatch(node.text)
    return bool(is_number) and len(node.text) <= _LONGEST_NUMBER


def _text(raw: bytes) -> str:
    if len(raw) > MAX_BYTES or b"\0" in raw:
        raise Refusal("no text file of a configuration's size")
    try:
        return raw.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as exc:
        raise Refusal("not UTF-8") from exc


def _override(text: str) -> tuple[Key, Node]:
    dotted, equals, value = text.partition("=")
    dotted, value = dotted.strip(), value.strip()
    known = schema.keys()
    if not equals or not value or dotted not in known:
        raise Refusal("no override of a key there is")
    section, key = dotted.split(".")
    if value[0] not in "[{\"'":
        return (section, key), Scalar(value, is_plain=True)
    document = _document("value: " + " ".join(value.splitlines()), {})
    if list(document) != ["value"]:
        raise Refusal("an override of more than one value")
    return (section, key), document["value"]


def _document(text: str, lines: dict[tuple[str, ...], int]) -> dict[str, Node]:
    """Read one document, a mapping; its keys' lines are entered by their path."""
    events = _events(text)
    if sum(isinstance(event, yaml.DocumentStartEvent) for event in events) > 1:
        raise Refusal("more than one document")
    content = [event for event in events if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent)]
    walk = iter(content)
    tree = _node(next(walk, None), walk, (), lines)
    if not isinstance(tree, dict) or not tree:
        raise Refusal("no mapping, or an empty one")
    return tree


def is_yaml(raw: bytes) -> bool:
    """Tell whether the YAML library's own parser reads it: libyaml takes a few tabs more, and that is not the kit's."""
    try:
        list(yaml.parse(_text(raw), Loader=yaml.BaseLoader))
    except (yaml.YAMLError, Refusal):
        return False
    return True


def _events(text: str) -> list[Any]:
    try:
        return list(yaml.parse(text, Loader=_LOADER))
    except (yaml.YAMLError, ValueError):
        # libyaml refuses a little more than the YAML library's own parser; that difference is not the kit's.
        try:
            return list(yaml.parse(text, Loader=yaml.BaseLoader))
        except yaml.YAMLError as exc:
            raise Refusal("no YAML") from exc


def _node(event: Any, walk: Iterator[Any], path: tuple[str, ...], lines: dict[tuple[str, ...], int]) -> Node:
    if event is None or len(path) > _DEEPEST:
        raise Refusal("nothing, or nested too deep")
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None or event.tag is not None:
        raise Refusal("an anchor, an alias or a tag")
    if isinstance(event, yaml.ScalarEvent):
        return Scalar(event.value, is_plain=not event.style)
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Node] = []
        while not isinstance(following := next(walk), yaml.SequenceEndEvent):
            items.append(_node(following, walk, (*path, "item"), lines))
        return items
    found: dict[str, Node] = {}
    while not isinstance(following := next(walk), yaml.MappingEndEvent):
        key = _node(following, walk, path, {})
        if not isinstance(key, Scalar) or (key.text == "<<" and key.is_plain) or key.text in found:
            raise Refusal("a key that is no word, a merge, or there twice")
        lines[*path, key.text] = following.start_mark.line + 1
        found[key.text] = _node(next(walk), walk, (*path, key.text), lines)
    return found
