"""docs/RECEIPT.md names every key of a real run's receipt and metrics, and none that no run writes."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from kit.cli.command import call
from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import train
from kit.machine import facts as machines
from kit.run_folder.receipt import SCHEMA_VERSION
from kit.runs.rerun_verdict import ABSOLUTE_TOLERANCE, EVALUATION_TOLERANCE, STEP_TOLERANCE
from small_run import CONFIG, overrides, read_metrics, read_receipt

if TYPE_CHECKING:
    from pathlib import Path

TEXT = (PROJECT_ROOT / "docs" / "RECEIPT.md").read_text(encoding="utf-8")
RECEIPT, METRICS = TEXT.split("## `run.json`")[1].split("## `metrics.jsonl`")
ROWS = dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", RECEIPT, re.MULTILINE))
CONDITIONAL = {key for key, when in ROWS.items() if when.startswith("only ")}
# Their keys are names: of configuration keys, packages, files.
BY_NAME = {
    *("config", "origins", "identity", "packages", "locks", "predicted.terms"),
    *("base_model.files", "checkpoints[].files", "adapter_files", "auto_fit[].from", "auto_fit[].to"),
    "auto_fit[].tried[].to",
}


def _keys(value: Any, path: str = "") -> set[str]:
    if path in BY_NAME:
        return {path}
    if isinstance(value, dict):
        return {key for name, inner in value.items() for key in _keys(inner, f"{path}.{name}".lstrip("."))}
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        return {key for inner in value for key in _keys(inner, f"{path}[]")}
    return {path}


def _holds_others(key: str) -> bool:
    """A key that is null or an empty list where there is nothing, and else holds keys of its own."""
    return any(other.startswith((f"{key}.", f"{key}[].")) for other in ROWS)


@pytest.fixture(scope="module")
def output(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documented") / "run"
    assert call(train, [str(CONFIG), *overrides(tiny_base, folder)]) == 0
    return folder


@pytest.mark.slow
def test_every_key_of_a_receipt_is_documented_and_every_documented_one_is_written(output: Path) -> None:
    written = _keys(read_receipt(output))
    for name in ("h100_80gb", "m4_32gb"):
        machine = machines.read(PROJECT_ROOT / f"tests/fixtures/machines/{name}.json")
        written |= _keys(asdict(machine), "machine")
    assert written - ROWS.keys() == set()
    assert {key for key in ROWS.keys() - written - CONDITIONAL if not _holds_others(key)} == set()


@pytest.mark.slow
def test_so_is_every_key_of_the_metrics(output: Path) -> None:
    lines = read_metrics(output)
    steps, evaluations = (
        {key for line in lines if ("eval_loss" in line) == is_evaluation for key in line}
        for is_evaluation in (False, True)
    )
    documented = [set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)) for part in METRICS.split("Evaluations, ")]
    assert documented == [steps, evaluations]


def test_what_is_written_only_sometimes_is_written_by_code_that_is_there() -> None:
    parts = ("run_folder/*.py", "train/*.py", "supervise/*.py", "track/*.py", "machine/facts.py")
    sources = "".join(
        p.read_text(encoding="utf-8") for part in parts for p in (PROJECT_ROOT / "scripts/kit").glob(part)
    )
    names = {re.split(r"[.\]]", key)[-1] for key in CONDITIONAL}
    assert len(names) > 20
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b[\"']?\]?\s*[=:]", sources)] == []


def test_no_key_is_documented_twice() -> None:
    assert len(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", RECEIPT, re.MULTILINE)) == len(ROWS)


def test_the_version_and_the_tolerance_are_those_of_the_code() -> None:
    assert f"\nIt is {SCHEMA_VERSION}. " in TEXT
    assert f"{STEP_TOLERANCE:.0%} of a training loss".replace("%", " %") in TEXT
    assert f"{EVALUATION_TOLERANCE:.0%} of a validation loss".replace("%", " %") in TEXT
    assert f"or {ABSOLUTE_TOLERANCE:g}." in TEXT
