from __future__ import annotations

import ast

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config import schema


def attributes_read(source: str) -> set[str]:
    """Every ``section.key`` that code reads as an attribute; text in messages and comments does not count."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, (ast.Attribute, ast.Name)):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id
            found.add(f"{owner}.{node.attr}")
    return found


# What only checks a key does not count as using it.
READ = {
    name
    for path in (PROJECT_ROOT / "scripts").rglob("*.py")
    if "rules" not in path.parts
    for name in attributes_read(path.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize("key", sorted(schema.keys()))
def test_every_key_does_something_besides_being_checked(key: str) -> None:
    assert key in READ or schema.keys()[key]["meta"]["to_trainer"]
