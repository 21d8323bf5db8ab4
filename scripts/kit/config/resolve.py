"""Resolve a configuration: command line over file over default, every problem at once, every origin known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kit.cli.findings import Finding, error
from kit.cli.redaction import is_secret_value
from kit.config import schema
from kit.config.error import ConfigError
from kit.config.findings import COMMAND_LINE, finding_of, unknown_key
from kit.config.settings import Settings
from kit.config.validator import show_key, violations
from kit.config.yaml_reader import parse_value, read_document

DEFAULT = "default"

Overrides = Sequence[str] | Mapping[str, Any]


@dataclass(frozen=True)
class Resolved:
    """One configuration, validated and complete.

    Attributes:
        path: The file it came from.
        values: The same as nested dictionaries, in the schema's order.
        origins: By dotted key path: ``command line``, ``file.yaml:12`` or ``default``.
    """

    path: Path
    settings: Settings
    values: dict[str, dict[str, Any]]
    origins: dict[str, str]

    def value(self, key: str) -> Any:
        """Return the value of a dotted key path, as it was written: a list, or ``auto``."""
        section, name = key.split(".")
        return self.values[section][name]

    def with_changes(self, changes: Mapping[str, Any], origins: Mapping[str, str]) -> Resolved:
        """Return the configuration with other values and their origins, by dotted key path."""
        values = {section: dict(body) for section, body in self.values.items()}
        for key, value in changes.items():
            section, name = key.split(".")
            values[section][name] = value
        return replace(self, settings=Settings.from_mapping(values), values=values, origins={**self.origins, **origins})

    def where(self, key: str) -> str:
        """Say where a key's value can be changed: its origin, or the file it could stand in."""
        origin = self.origins[key]
        return f"{self.path} (default)" if origin == DEFAULT else origin


@dataclass
class _Draft:
    """Values on their way to be resolved, with the origin of each path of keys."""

    path: Path
    values: dict[str, Any]
    origins: dict[tuple[str, ...], str]
    findings: list[Finding] = field(default_factory=list)


def resolve(path: Path, overrides: Overrides = ()) -> Resolved:
    """Read a file, apply the overrides, validate and fill in the defaults.

    ``overrides`` are ``key.path=value`` strings, parsed as YAML scalars; or a mapping of key paths, or of sections, to
    Python values, which are taken as they are. The last one given for a key counts.

    A file's ``model.revision`` goes with the model it names: where the overrides name another, and no revision, it is
    left at its default.

    Raises:
        ConfigError: Every problem of the file and the overrides, as findings.
    """
    document = read_document(path)
    draft = _Draft(path, document.values, {keys: f"{path}:{line}" for keys, line in document.lines.items()})
    named = _model_named(draft)
    _lay_over(draft, overrides)
    _leave_out_revision(draft, named)
    draft.findings.extend(
        finding_of(violation, _where(draft, violation.path)) for violation in violations(draft.values)
    )
    draft.findings.extend(_secrets(draft))
    if draft.findings:
        raise ConfigError(draft.findings)
    return _complete(draft)


def _model_named(draft: _Draft) -> Any:
    model = draft.values.get("model")
    return model.get("model_name_or_path") if isinstance(model, dict) else None


def _leave_out_revision(draft: _Draft, named: Any) -> None:
    """Drop a file's revision if an override names another model: a commit belongs to one repository."""
    if _model_named(draft) == named or draft.origins.get(("model", "revision")) == COMMAND_LINE:
        return
    model, key = draft.values.get("model"), ("model", "revision")
    if isinstance(model, dict) and key in draft.origins:
        del draft.origins[key], model["revision"]


def _secrets(draft: _Draft) -> list[Finding]:
    """Refuse values that are tokens: a configuration is kept in the receipt, the report and the adapter's card."""
    fix = "remove it, and revoke it if it was shared; put tokens into HF_TOKEN, WANDB_API_KEY or a login"
    return [
        error("config.secret", f"{section}.{key} holds a token or a password", fix, _where(draft, (section, str(key))))
        for section, body in draft.values.items()
        for key, value in (body.items() if isinstance(body, dict) else ())
        if isinstance(value, str) and is_secret_value(value, f"{section}.{key}")
    ]


def _where(draft: _Draft, path: tuple[str, ...]) -> str:
    """Return the origin of a key, else of its section, else the file."""
    return draft.origins.get(path) or draft.origins.get(path[:1]) or str(draft.path)


def _complete(draft: _Draft) -> Resolved:
    """Fill in the defaults and give whole numbers the type of their key, so that 1 and 1.0 resolve alike."""
    values = schema.completed(draft.values)
    origins: dict[str, str] = {}
    for dotted, rule in schema.keys().items():
        section, key = dotted.split(".")
        if rule["type"] == "number":
            values[section][key] = float(values[section][key])
        origins[dotted] = draft.origins.get((section, key), DEFAULT)
    return Resolved(draft.path, Settings.from_mapping(values), values, origins)


def _lay_over(draft: _Draft, overrides: Overrides) -> None:
    pairs = _from_mapping(overrides) if isinstance(overrides, Mapping) else _from_strings(draft, overrides)
    for dotted, value in pairs:
        section, _, key = dotted.partition(".")
        if not key and section in schema.SCHEMA:
            first = next(iter(schema.SCHEMA[section]["schema"]))
            _refuse_override(
                draft, f"{section} is a section, not a key", f"name a key in it, such as {section}.{first}=…"
            )
            continue
        if section not in schema.SCHEMA or not key:
            # Kept out of the values: an unknown name must not stand in for a part of the file.
            draft.findings.append(unknown_key(tuple(dotted.split(".")), COMMAND_LINE))
            continue
        if section not in draft.values:
            draft.origins[section,] = COMMAND_LINE
        body = draft.values.setdefault(section, {})
        if body is None:
            body = draft.values[section] = {}
        if isinstance(body, dict):
            body[key] = value
            draft.origins[section, key] = COMMAND_LINE


def _from_mapping(overrides: Mapping[str, Any]) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in overrides.items():
        if isinstance(value, Mapping):
            pairs.extend((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            pairs.append((str(name), list(value) if isinstance(value, tuple) else value))
    return pairs


def _from_strings(draft: _Draft, overrides: Sequence[str]) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    if isinstance(overrides, str):
        overrides = [overrides]
    for text in overrides:
        dotted, equals, value = text.partition("=")
        dotted = dotted.strip()
        if not equals:
            _refuse_override(draft, f"{text!r} is not an override: it has no '='", "write key.path=value")
        elif not dotted:
            _refuse_override(draft, f"{text!r} has no key before the '='", "write key.path=value")
        elif not value.strip():
            name = show_key((dotted,))
            _refuse_override(draft, f"{name} has no value", f"write {name}=value, or {name}=null for none")
        else:
            try:
                pairs.append((dotted, parse_value(value, f"{COMMAND_LINE}, {dotted}")))
            except ConfigError as exc:
                draft.findings.extend(exc.findings)
    return pairs


def _refuse_override(draft: _Draft, message: str, fix: str) -> None:
    draft.findings.append(error("config.override.malformed", message, fix, COMMAND_LINE))
