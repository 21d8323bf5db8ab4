"""Hold the shipped configurations against the declared keys: each names all of them, in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, ok
from kit.config import schema
from kit.config.yaml_reader import read_document
from kit.config.yaml_writer import scalar

if TYPE_CHECKING:
    from pathlib import Path


def check_configs(folder: Path) -> list[Finding]:
    """Name each key that a configuration leaves to its default, and the first that is not where it is declared."""
    return [finding for path in sorted(folder.glob("*.y*ml")) for finding in _judge(path, f"configs/{path.name}")]


def _judge(path: Path, where: str) -> list[Finding]:
    declared = list(schema.keys())
    named = [".".join(keys) for keys in read_document(path).lines if len(keys) > 1]
    missing = [_missing(key, declared, where) for key in declared if key not in named]
    if missing:
        return missing
    for key, expected in zip(named, declared, strict=False):
        if key != expected:
            fix = "list the keys in the order of scripts/kit/config/keys.py"
            return [error("docs.config_order", f"names {key} where {expected} belongs", fix, where)]
    return [ok("docs.config_keys", f"names all {len(declared)} keys", where)]


def _missing(key: str, declared: list[str], where: str) -> Finding:
    section, _, name = key.partition(".")
    before = [each for each in declared[: declared.index(key)] if each.startswith(f"{section}.")]
    place = f"below `{before[-1].partition('.')[2]}`" if before else f"first under `{section}:`"
    line = f"{name}: {scalar(schema.keys()[key].get('default'))}"
    fix = f"add `{line}` {place}, with a comment above it that says why"
    return error("docs.config_keys", f"does not name {key}", fix, where)
