"""The table that docs/RECEIPT.md is made from has every key of a real run's receipt and metrics, and no other."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from kit.cli.command import call
from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import train
from kit.machine import facts as machines
from kit.run_directory.receipt_keys import EVALUATION_METRICS, RECEIPT, STEP_METRICS
from small_run import CONFIG, overrides, read_metrics, read_receipt

if TYPE_CHECKING:
    from pathlib import Path

KEYS = [key for section in RECEIPT.values() for key in section]
PATHS = {key.path.removesuffix("[]") for key in KEYS}
# Their keys are names: of configuration keys, packages, files.
BY_NAME = {
    *("config", "origins", "identity", "packages", "locks", "predicted.terms"),
    *("base_model.files", "checkpoints[].files", "adapter_files", "auto_fit[].from", "auto_fit[].to"),
    "auto_fit[].tried[].to",
}


def _keys(value: Any, path: str = "") -> set[str]:
    """Name every key, also those that hold others; a list is told from its entries by ``[]``."""
    own = {path.removesuffix("[]")} - {""}
    if isinstance(value, list | tuple):
        return own.union(*(_keys(inner, f"{path}[]") for inner in value if isinstance(inner, dict)))
    if isinstance(value, dict) and path not in BY_NAME:
        return own.union(*(_keys(inner, f"{path}.{name}".lstrip(".")) for name, inner in value.items()))
    return own


@pytest.fixture(scope="module")
def output(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documented") / "run"
    assert call(train, [str(CONFIG), *overrides(tiny_base, folder)]) == 0
    return folder


@pytest.mark.slow
def test_every_key_of_a_receipt_is_declared_and_every_declared_one_is_written(output: Path) -> None:
    receipt = read_receipt(output)
    written = _keys(receipt)
    for name in ("h100_80gb", "m4_32gb"):
        machine = machines.read(PROJECT_ROOT / f"tests/fixtures/machines/{name}.json")
        written |= _keys(asdict(machine), "machine")
    assert written - PATHS == set()
    # What is written only sometimes, and what null or an empty list did not hold here.
    sometimes = {key.path.removesuffix("[]") for key in KEYS if key.when.startswith("only ")}
    empty = {path for path in written if not any(other.startswith((f"{path}.", f"{path}[].")) for other in written)}
    absent = tuple(f"{path}{end}" for path in sometimes | empty for end in (".", "[]."))
    assert {path for path in PATHS - written - sometimes if not path.startswith(absent)} == set()


@pytest.mark.slow
def test_so_is_every_key_of_the_metrics(output: Path) -> None:
    lines = read_metrics(output)
    steps, evaluations = (
        {key for line in lines if ("eval_loss" in line) == is_evaluation for key in line}
        for is_evaluation in (False, True)
    )
    assert [{key.path for key in keys} for keys in (STEP_METRICS, EVALUATION_METRICS)] == [steps, evaluations]


def test_every_name_that_is_declared_is_written_by_code_that_is_there() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for path in (PROJECT_ROOT / "scripts/kit").rglob("*.py")
        if path.name != "receipt_keys.py"
    )
    names = {key.path.removesuffix("[]").rpartition(".")[2] for key in KEYS}
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b[\"']?\]?\s*[=:]", sources)] == []


def test_no_key_is_declared_twice_and_each_stands_below_the_one_that_holds_it() -> None:
    paths = [key.path for key in KEYS]
    assert len(PATHS) == len(paths)
    last = [""]
    for path in paths:
        depth = path.count(".")
        assert path.rpartition(".")[0] == ".".join(last[:depth])
        last = [*last[:depth], path.rpartition(".")[2]]
