"""Every key and bound of the schema, mutated: the mutants are made from the schema itself, so none is forgotten."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config import schema
from kit.config.error import ConfigError
from kit.config.platforms import PLATFORMS
from kit.config.resolve import resolve
from kit.config.validator import describe, violations
from kit.config.yaml_writer import annotated_yaml

BASE = PROJECT_ROOT / "configs" / "training_config.yaml"
_EVERY_TYPE: dict[str, Any] = {
    "boolean": True,
    "integer": 5,
    "fraction": 0.5,
    "text": "three words here",
    "list": ["q_proj"],
    "mapping": {"a": {"b": 1}},
    "null": None,
}
_ACCEPTED_TYPES = {
    "boolean": {"boolean"},
    "switch": {"boolean"},
    "integer": {"integer"},
    "number": {"integer", "fraction"},
    "string": {"text"},
    "list": {"list"},
}


BAD_TEXTS = ("", " ", " a", "a ", "a\nb", "a\0b", "a\x7f", "\ud800")
NO_DAYS = ("2026-02-30", "2026-2-3", "20261127", "2026-W48-5", "today")


def _mutants() -> list[tuple[str, str, Any]]:
    found = []
    for key, rule in schema.keys().items():
        accepted = _ACCEPTED_TYPES[rule["type"]] | ({"null"} if rule.get("nullable") else set())
        found += [(key, f"type {name}", value) for name, value in _EVERY_TYPE.items() if name not in accepted]
        step = 1 if rule["type"] == "integer" else 1e-6
        if "min" in rule:
            found.append((key, "below", rule["min"] - step))
        if "above" in rule:
            found.append((key, "at the excluded bound", rule["above"]))
        if "max" in rule:
            found.append((key, "above", rule["max"] + step))
        if rule["type"] == "number":
            found += [(key, "not finite", value) for value in (math.nan, math.inf, -math.inf)]
        if rule["type"] == "integer":
            found.append((key, "a whole number written as a fraction", 4.0))
        found += [(key, "forbidden", value) for value in rule.get("forbidden", ())]
        if "allowed" in rule:
            found += [(key, "not allowed", f"{rule['allowed'][-1]}x"), (key, "upper case", rule["allowed"][-1].upper())]
        if rule["type"] == "string" and "allowed" not in rule:
            found += [(key, "bad text", value) for value in BAD_TEXTS + NO_DAYS * (rule.get("check_with") == "day")]
        if rule["type"] == "list":
            found += [
                (key, "list", value) for value in ([], ["q_proj", "q_proj"], ["lm_head"], [1], [None], [["q_proj"]])
            ]
    return found


MUTANTS = _mutants()


@pytest.fixture(scope="module")
def required_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(
        "model: {model_name_or_path: m}\nlora: {r: 8, lora_alpha: 16}\ndata: {train_file: t}\n"
        "training: {run_name: n, learning_rate: 2e-4}\n",
        encoding="utf-8",
    )
    return path


def test_every_key_is_mutated() -> None:
    assert {key for key, _, _ in MUTANTS} == set(schema.keys())


@pytest.mark.parametrize(("key", "kind", "value"), MUTANTS)
def test_a_mutant_is_rejected_with_its_path(key: str, kind: str, value: Any, required_only: Path) -> None:
    section, name = key.split(".")
    values = {**schema.defaults(), section: {name: value}}
    assert any(violation.path == (section, name) for violation in violations(values)), kind
    if not isinstance(value, dict):
        with pytest.raises(ConfigError) as caught:
            resolve(required_only, {key: value})
        (finding,) = caught.value.findings
        assert finding.message.startswith(f"{key} must be {describe(schema.keys()[key])}; found ")
        assert finding.fix
        assert finding.where == "command line"


@pytest.mark.parametrize("key", list(schema.keys()))
def test_a_misspelt_key_is_rejected_and_the_right_one_named(key: str, tmp_path: Path) -> None:
    name = key.split(".")[1]
    misspelt = f"{name}x" if len(name) > 1 else "rr"
    complete = resolve(BASE)
    changed = annotated_yaml(complete.values, complete.origins).replace(f"  {name}:", f"  {misspelt}:")
    path = tmp_path / "config.yaml"
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        resolve(path)
    unknown = [finding for finding in caught.value.findings if finding.id == "config.unknown_key"]
    assert len(unknown) == 1
    assert f"{key.split('.', maxsplit=1)[0]}.{misspelt}" in unknown[0].message
    if name != "r":  # one letter is near to nothing
        assert f"did you mean {key}?" in unknown[0].fix
    line = changed.splitlines().index(next(text for text in changed.splitlines() if text.startswith(f"  {misspelt}:")))
    assert unknown[0].where == f"{path}:{line + 1}"


@pytest.mark.parametrize("section", list(schema.SCHEMA))
def test_a_misspelt_section_is_rejected_and_the_right_one_named(section: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    text = BASE.read_text(encoding="utf-8").replace(f"\n{section}:", f"\n{section}s:")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"{section}s is not a configuration key.*did you mean {section}\?"):
        resolve(path)


@pytest.mark.parametrize("section", list(schema.SCHEMA))
@pytest.mark.parametrize("value", [None, 3, "text", ["a"]])
def test_a_section_that_is_no_mapping_is_rejected(section: str, value: Any) -> None:
    found = violations({**schema.defaults(), section: value})
    assert [violation.path for violation in found if violation.path[0] == section] == [(section,)]


def test_the_required_keys_are_those_without_a_sane_default() -> None:
    assert schema.required_keys() == [
        "model.model_name_or_path",
        "lora.r",
        "lora.lora_alpha",
        "data.train_file",
        "training.run_name",
        "training.learning_rate",
    ]


@pytest.mark.parametrize("key", schema.required_keys())
def test_a_missing_required_key_is_named(key: str, tmp_path: Path) -> None:
    name = key.split(".")[1]
    lines = BASE.read_text(encoding="utf-8").splitlines()
    path = tmp_path / "config.yaml"
    path.write_text("\n".join(line for line in lines if not line.startswith(f"  {name}:")), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{key} is required and missing"):
        resolve(path)


@pytest.mark.parametrize(("key", "rule"), list(schema.keys().items()))
def test_defaults_and_bounds_are_themselves_accepted(key: str, rule: dict[str, Any], required_only: Path) -> None:
    values = [rule[name] for name in ("default", "min", "max") if name in rule] + rule.get("allowed", [])
    for value in values:
        assert resolve(required_only, {key: value}).origins[key] == "command line"


def test_every_key_has_a_meaning_and_known_platforms_and_a_number_both_bounds() -> None:
    for key, rule in schema.keys().items():
        assert rule["meta"]["meaning"].endswith("."), key
        assert set(rule["meta"]["platforms"]) <= set(PLATFORMS), key
        assert rule["meta"]["platforms"], key
        if rule["type"] in {"integer", "number"}:
            assert "max" in rule, key
            assert {"min", "above"} & set(rule), key


def test_no_familiar_name_means_two_keys() -> None:
    aliases = [alias for rule in schema.keys().values() for alias in rule["meta"]["also_known_as"]]
    names = [key.split(".")[1] for key in schema.keys()]  # noqa: SIM118 - a function, not a mapping's method
    assert len({*aliases, *names}) == len(aliases) + len(names)


def test_defaults_are_fresh_copies() -> None:
    schema.defaults()["lora"]["target_modules"].clear()
    assert schema.defaults()["lora"]["target_modules"]


def test_the_run_name_cannot_leave_its_directory(required_only: Path) -> None:
    for name in ("..", ".", "a/b", "a\\b", "-rf", "a b", "a\n", "a" * 101, "~", "$HOME"):
        with pytest.raises(ConfigError, match=r"training\.run_name must be"):
            resolve(required_only, {"training.run_name": name})
