"""The generated docs are those of the schema, and the JSON schema agrees with Cerberus on what a configuration is."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from json_schema_check import accepts
from kit.cli.interpreter import PROJECT_ROOT
from kit.config import schema
from kit.config.error import ConfigError
from kit.config.validator import violations
from kit.config.yaml_reader import read_document
from tools import document
from tools.config_reference import reference_page
from tools.json_schema import json_schema

if TYPE_CHECKING:
    from pathlib import Path

CONFIGS = sorted((PROJECT_ROOT / "configs").rglob("*.y*ml"))
BAD = sorted((PROJECT_ROOT / "tests" / "fixtures" / "bad_configs").glob("*.yaml"))
SCHEMA = json_schema()
NEEDED: dict[str, dict[str, Any]] = {
    "model": {"model_name_or_path": "m"},
    "lora": {"r": 8, "lora_alpha": 16},
    "data": {"train_file": "t"},
    "training": {"run_name": "n", "learning_rate": 2e-4},
}


def test_the_generated_docs_are_up_to_date() -> None:
    assert document.main(["--check"]) == 0


def test_a_stale_one_is_found_and_the_gate_would_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "DOCS", tmp_path)
    monkeypatch.setattr(document, "CONFIGS", tmp_path)
    assert document.main(["--check"]) == 1
    assert document.main([]) == 0
    assert document.main(["--check"]) == 0
    (tmp_path / "CONFIG_REFERENCE.md").write_text("by hand")
    assert document.main(["--check"]) == 1


def test_the_reference_has_every_key_with_its_default() -> None:
    page = reference_page()
    for path, rule in schema.keys().items():
        row = re.search(rf"^\| `{path.split('.')[1]}` \| (.*) \|$", page, re.MULTILINE)
        assert row
        assert rule["meta"]["meaning"] in row.group(1)
    assert page.count("**required**") == len(schema.required_keys())


def test_every_shipped_config_is_accepted_and_names_the_schema() -> None:
    assert len(CONFIGS) == 4
    for path in CONFIGS:
        assert accepts(SCHEMA, read_document(path).values), path
        (named,) = re.findall(
            r"^# yaml-language-server: \$schema=(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE
        )
        assert (path.parent / named).resolve() == document.DOCS / "training_config.schema.json"


def test_every_bad_config_that_is_yaml_at_all_is_refused() -> None:
    refused = []
    for path in BAD:
        try:
            values = read_document(path).values
        except ConfigError:
            continue  # there are no values to judge
        if path.stem not in {"not_a_number", "fraction_for_integer"}:  # JSON has no NaN, and 16.0 is an integer to it
            assert not accepts(SCHEMA, values), path
            refused.append(path.stem)
    assert len(refused) >= 15


def _other_values(rule: dict[str, Any]) -> list[Any]:
    """Values around a rule's bounds, and one of every type."""
    values: list[Any] = [
        None,
        True,
        False,
        0,
        1,
        -1,
        5,
        0.5,
        1e9,
        "text",
        "",
        " a",
        "a ",
        "a\n",
        "a\0b",
        [],
        {},
        [1],
        ["q_proj"],
    ]
    values += [
        ["q_proj", "q_proj"],
        ["lm_head"],
        [["q_proj"]],
        "-rf",
        "a/b",
        "..",
        "a" * 101,
        "\u2028",
        "a\u2028b",
        "ü b",
    ]
    for bound in ("min", "max", "above"):
        if bound in rule:
            values += [rule[bound], rule[bound] + 1, rule[bound] - 1, rule[bound] + 1e-9, rule[bound] - 1e-9]
    for word in rule.get("allowed", ()):
        values += [word, str(word).upper(), f"{word}x"]
    return values


@pytest.mark.parametrize("key", list(schema.keys()))
def test_both_schemas_agree_on_every_key(key: str) -> None:
    section, name = key.split(".")
    for value in _other_values(schema.keys()[key]):
        if schema.keys()[key]["type"] == "integer" and isinstance(value, float) and value == int(value):
            continue  # 4.0 is an integer to JSON
        values = {**NEEDED, section: {**NEEDED.get(section, {}), name: value}}
        assert accepts(SCHEMA, values) == (not violations(values)), value


@settings(max_examples=150)
@given(st.data())
def test_both_schemas_agree_on_anything(data: st.DataObject) -> None:
    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8))
    section = data.draw(st.sampled_from([*schema.SCHEMA, "models"]))
    names = [*schema.SCHEMA.get(section, {}).get("schema", ()), "lr"]
    body = data.draw(
        st.dictionaries(st.sampled_from(names), st.one_of(leaves, st.lists(leaves, max_size=3)), max_size=3)
    )
    for key, value in body.items():
        rule = schema.keys().get(f"{section}.{key}", {})
        if rule.get("type") == "integer" and isinstance(value, float) and math.isfinite(value) and value == int(value):
            body[key] = 0.5
    values = {**NEEDED, section: {**NEEDED.get(section, {}), **body}}
    assert accepts(SCHEMA, values) == (not violations(values))


def test_patterns_hold_in_an_editors_dialect_too() -> None:
    patterns = re.findall(r'"pattern": (".*?[^\\]")', json.dumps(SCHEMA))
    assert patterns
    for pattern in map(json.loads, patterns):
        assert r"\Z" not in pattern
        assert r"\x" not in pattern
        assert pattern.startswith("^")
