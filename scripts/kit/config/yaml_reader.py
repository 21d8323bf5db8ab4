"""Read a YAML mapping with the line of every key, in the plain subset of YAML a configuration needs.

Scalars follow YAML 1.2: ``2e-4`` is a number, ``yes`` and ``on`` are text, and so is whatever looks like an octal,
hexadecimal, sexagesimal or underscored number: the schema then refuses the text by name. Anchors, aliases, merge keys
and tags are refused: with them a value's line is no longer where it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped,unused-ignore] # the stubs are not part of the locks

from kit.cli.findings import Finding, error
from kit.config.error import ConfigError
from kit.config.file import read_text
from kit.config.validator import show_key

_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_TRUE = re.compile(r"(?:true|True|TRUE)\Z")
_FALSE = re.compile(r"(?:false|False|FALSE)\Z")
# No leading zeros: 010 is 8 to YAML 1.1 and 10 to YAML 1.2, so it stays text.
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_LONGEST_NUMBER = 100  # characters; Python itself refuses integers of more than 4300 digits
_MAX_DEPTH = 8  # a configuration has 3: section, key, list item
_LONGEST_TEXT = 10_000  # characters of one key or value; a path has 4,096 at most
_MOST_FINDINGS = 50  # structural ones, then the reading ends: a file of nothing else is no configuration
_MAX_ENTRIES = 1_000  # keys and values; a configuration has about 100. Bounds the time a hostile file can take


@dataclass
class Document:
    """A mapping as read: plain values, and the line (from 1) of each key by its path of keys."""

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)


def read_document(path: Path) -> Document:
    """Read a configuration file.

    Raises:
        ConfigError: The file cannot be read, is no YAML, or uses what is not allowed here; all findings it holds.
    """
    return parse_document(read_text(path), str(path))


def parse_document(text: str, name: str) -> Document:
    """Parse text; ``name`` stands before the line in each finding. Raises ConfigError as ``read_document`` does."""
    return _Walk(name).document(text)


def parse_value(text: str, where: str) -> Any:
    """Parse one override's value: quotes and flow lists as in YAML, anything else as one plain scalar to its end.

    Raises:
        ConfigError: The quotes or brackets do not close, or hold what is not allowed in a configuration.
    """
    text = text.strip()
    if text[:1] not in {"[", "{", '"', "'"}:
        return plain_scalar(text)
    # Line breaks are blanks here, or a second line could bring its own keys.
    walk = _Walk(where, numbered=False)
    return walk.document(f"value: {' '.join(text.splitlines())}").values["value"]


def plain_scalar(text: str) -> Any:
    """Give an unquoted scalar its type: None, bool, int, float or str."""
    if _NULL.match(text):
        return None
    if _TRUE.match(text) or _FALSE.match(text):
        return bool(_TRUE.match(text))
    if len(text) <= _LONGEST_NUMBER:
        if _INTEGER.match(text):
            return int(text)
        if _FLOAT.match(text):
            return float(text)
        if _NOT_FINITE.match(text):
            return float(text.replace(".", "", 1))
    return text


class _Refused(Exception):  # noqa: N818 - control flow inside this module, not an error anyone sees
    """The walk cannot go on; its findings say why."""


class _Walk:
    """One pass over PyYAML's events, which keep what a loaded document has lost: lines, tags, duplicates, quotes."""

    def __init__(self, name: str, *, numbered: bool = True) -> None:
        self.name = name
        self.numbered = numbered
        self.findings: list[Finding] = []
        self.entries = 0
        self.result = Document()

    def document(self, text: str) -> Document:
        try:
            self._run(text)
        except _Refused:
            pass
        except yaml.YAMLError as exc:
            self._explain(exc, text)
        if self.findings:
            raise ConfigError(self.findings)
        return self.result

    def _run(self, text: str) -> None:
        events = yaml.parse(text, Loader=yaml.SafeLoader)
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._stop(event, "several_documents", "begins a second document", "keep one document per file")
            elif isinstance(event, yaml.MappingStartEvent):
                self._check_node(event)
                self.result.values = self._mapping(events, ())
            elif isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.AliasEvent):
                if isinstance(event, yaml.ScalarEvent) and not event.value and not event.style:
                    break
                kind = "a list" if isinstance(event, yaml.SequenceStartEvent) else "a single value"
                self._stop(event, "not_mapping", f"holds {kind}, not sections of keys", "begin with `model:`")
        if not documents or not (self.result.values or self.findings):
            fix = "copy configs/training_config.yaml and edit the copy"
            self.findings.append(error("config.yaml.empty", "is empty", fix, self.name))

    def _mapping(self, events: Iterator[Any], path: tuple[str, ...]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                return mapping
            if not isinstance(event, yaml.ScalarEvent):
                self._stop(event, "complex_key", "has a list or a mapping as a key", "use plain strings as keys")
            key = event.value
            here = (*path, key)
            if key == "<<" and not event.style:
                self._note(event, "merge_key", "uses a merge key (<<)", "write the keys out")
            else:
                self._check_node(event)
            value = self._value(next(events), events, here)
            if key in mapping:
                message = f"{show_key(here)} is given twice, first in line {self.result.lines[here]}"
                self._note(event, "duplicate_key", message, "keep one of the two lines")
            else:
                mapping[key] = value
                self.result.lines[here] = event.start_mark.line + 1
        return mapping

    def _sequence(self, events: Iterator[Any], path: tuple[str, ...]) -> list[Any]:
        items: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._value(event, events, (*path, str(len(items)))))
        return items

    def _value(self, event: Any, events: Iterator[Any], path: tuple[str, ...]) -> Any:
        self._check_node(event)
        if len(path) > _MAX_DEPTH:
            self._stop(
                event, "too_deep", f"nests deeper than {_MAX_DEPTH} levels", "nest keys in sections, one level deep"
            )
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(events, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, path)
        if isinstance(event, yaml.AliasEvent):
            return None
        return event.value if event.style else plain_scalar(event.value)

    def _check_node(self, event: Any) -> None:
        self.entries += 1
        if self.entries > _MAX_ENTRIES:
            self._stop(event, "too_many", f"holds more than {_MAX_ENTRIES:,} entries", "name the YAML configuration")
        if isinstance(event, yaml.AliasEvent):
            self._note(event, "alias", f"uses an alias (*{event.anchor})", "write the value out")
        elif event.anchor is not None:
            self._note(event, "anchor", f"sets an anchor (&{event.anchor})", "write the value out where it is used")
        if getattr(event, "tag", None) is not None:
            self._note(event, "tag", f"uses a tag ({event.tag})", "write the plain value")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST_TEXT:
            message = f"holds a string of {len(event.value):,} characters; {_LONGEST_TEXT:,} are allowed"
            self._stop(event, "too_long", message, "shorten it")
        # A lone surrogate cannot be printed, so not even an error message could show it.
        if isinstance(event, yaml.ScalarEvent) and any("\ud800" <= char <= "\udfff" for char in event.value):
            self._stop(event, "surrogate", "holds half a character (a lone surrogate)", r"use \U with the full code")

    def _note(self, event: Any, what: str, message: str, fix: str) -> None:
        self.findings.append(error(f"config.yaml.{what}", message, fix, self._place(event.start_mark.line + 1)))
        if len(self.findings) >= _MOST_FINDINGS:
            raise _Refused

    def _stop(self, event: Any, what: str, message: str, fix: str) -> None:
        self._note(event, what, message, fix)
        raise _Refused

    def _place(self, line: int) -> str:
        return f"{self.name}:{line}" if self.numbered else self.name

    def _explain(self, exc: yaml.YAMLError, text: str) -> None:
        lines = text.splitlines() or [""]
        if isinstance(exc, yaml.reader.ReaderError):
            line = text.count("\n", 0, exc.position) + 1
            message = f"holds the control character U+{ord(text[exc.position]):04X}"
            self.findings.append(error("config.yaml.control", message, "delete the character", self._place(line)))
            return
        mark = getattr(exc, "problem_mark", None) or getattr(exc, "context_mark", None)
        line = mark.line + 1 if mark else 1
        shown = lines[min(line, len(lines)) - 1]
        if "\t" in shown[: len(shown) - len(shown.lstrip())]:
            message, fix = "is indented with a tab, which YAML does not allow", "use spaces"
        else:
            problem = " ".join(str(getattr(exc, "problem", "") or exc).split())
            message = f"is not valid YAML: {problem}"
            fix = (
                "put the text in quotes, or close the bracket or quote above it" if self.numbered else "quote the value"
            )
        self.findings.append(error("config.yaml.syntax", message, fix, self._place(line)))
