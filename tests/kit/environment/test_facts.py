"""Facts survive a recording; anything else is refused in one sentence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.environment import facts
from kit.environment.facts import DeviceProbe, Stage
from kit.machine.recorded import to_json

if TYPE_CHECKING:
    from pathlib import Path

FIXTURES = PROJECT_ROOT / "tests" / "fixtures" / "environments"


@pytest.mark.parametrize("path", sorted(FIXTURES.rglob("*.json")), ids=lambda path: path.stem)
def test_facts_survive_recording(path: Path) -> None:
    environment = facts.read(path)
    assert facts.from_mapping(json.loads(to_json(environment))) == environment


@pytest.mark.parametrize(
    "data",
    [
        [],
        {},
        {"schema_version": 2, "environment": {}},
        {"schema_version": 1},
    ],
)
def test_what_is_no_record_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="not an environment recorded"):
        facts.from_mapping(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moon_phase": "full"}, r"environment\.moon_phase is not a known fact"),
        ({"machine": {}}, r"environment\.machine\.system is missing"),
        ({"installed": {"torch": None}}, r"environment\.installed\.torch is null; printable text is needed"),
        ({"probe": {"stages": [{"name": "import torch"}]}}, r"environment\.probe\.stages\[0\]\.outcome is missing"),
    ],
)
def test_a_wrong_fact_is_refused_by_place(changes: dict[str, object], message: str) -> None:
    data = json.loads((FIXTURES / "m4_good.json").read_text(encoding="utf-8"))
    data["environment"].update(changes)
    with pytest.raises(ValueError, match=message):
        facts.from_mapping(data)


def test_a_file_that_is_no_json_is_a_value_error(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text("not json", encoding="utf-8")
    with pytest.raises(ValueError, match="Expecting value"):
        facts.read(path)


def test_the_stack_is_named_by_the_installed_packages() -> None:
    assert facts.read(FIXTURES / "h100_reference_good.json").stack.name == "reference"
    assert facts.read(FIXTURES / "m4_good.json").stack.name == "current"
    assert facts.read(FIXTURES / "h100_missing_torch.json").stack.name == "none"


def test_an_import_that_was_not_tried_is_told_from_one_that_works_and_one_that_ended_the_process() -> None:
    probe = DeviceProbe(
        "died",
        "signal SIGSEGV",
        (Stage("import torch", "ok"), Stage("import flash_attn", "skipped"), Stage("import trl", "started")),
    )
    assert probe.import_error("torch") == ""
    assert probe.import_error("flash_attn") is None
    assert probe.import_error("peft") is None
    assert probe.import_error("trl") == "the process ended while importing it"
    assert probe.stopped_in == "import trl"
