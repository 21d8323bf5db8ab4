"""Print the resolved configuration: every value, and its origin.

Run as:
    python scripts/kit config                              the configuration that fits this machine
    python scripts/kit config configs/training_config_m4.yaml training.learning_rate=1e-4 lora.r=32
    python scripts/kit config configs/training_config_m4.yaml --json

The output is a valid configuration. Exit codes: 0 valid, 1 invalid, 2 wrong use or an unreadable file.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit.cli.findings import as_json, error
from kit.config import schema
from kit.config.error import ConfigError
from kit.config.resolve import Overrides, Resolved, resolve
from kit.config.yaml_writer import annotated_yaml
from kit.machine.target import add_config_arguments, target_of


def load_config(path: Path | str, overrides: Overrides | None = None) -> dict[str, Any]:
    """Return a configuration as plain nested dictionaries, validated and complete.

    ``overrides`` are ``["key.path=value", …]``, parsed like YAML, or a mapping such as ``{"lora.r": 32}``.

    Raises:
        ConfigError: Every problem at once, as findings; its text is one line for each.
    """
    return resolve(Path(path), overrides or ()).values


def validate_required_fields(config: Mapping[str, Any]) -> None:
    """Make sure that every key without a default is there and not null.

    Raises:
        ConfigError: One finding for each missing field, all at once.
    """
    missing = []
    for path in schema.required_keys():
        section, key = path.split(".")
        body = config.get(section)
        if not isinstance(body, dict) or body.get(key) is None:
            fix = f"add `{key}: …` under `{section}:`"
            missing.append(error("config.missing_key", f"{path} is required and missing", fix))
    if missing:
        raise ConfigError(missing)


def _as_json(resolved: Resolved) -> str:
    return as_json([], config=str(resolved.path), values=resolved.values, origins=resolved.origins)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(options: argparse.Namespace) -> int:
    target = target_of(options)
    resolved = resolve(target.config, target.overrides)
    print(_as_json(resolved) if options.json else annotated_yaml(resolved.values, resolved.origins), end="")
    return 0
