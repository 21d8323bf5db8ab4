"""What leaves nothing to rerun is an error that names the file; what can change bits is a warning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kit.files.digest import file_sha256
from kit.files.json_files import write_json
from kit.run_directory.history import read_run
from kit.run_directory.receipt import Receipt, sealed
from kit.runs.provenance import provenance_here, reasons_for_other_bits
from kit.runs.reproduction import check
from written_run import RESOLVED


@pytest.fixture(scope="module")
def here() -> dict[str, Any]:
    return provenance_here()


@pytest.fixture
def run(tmp_path: Path, here: dict[str, Any]) -> Path:
    folder, base = tmp_path / "run", tmp_path / "base"
    for made in (folder, base):
        made.mkdir()
    files = {name: tmp_path / name for name in ("train.jsonl", "val.jsonl")}
    for path in (*files.values(), base / "model.safetensors"):
        path.write_text(f"{path.name}\n", encoding="utf-8")
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n', encoding="utf-8")
    receipt = Receipt(
        folder,
        **here,
        config=RESOLVED.settings.as_mapping(),
        data=[{"path": str(path), "sha256": file_sha256(path)} for path in files.values()],
        base_model={"name": str(base), "files": {"model.safetensors": file_sha256(base / "model.safetensors")}},
        changes_allowed=[],
    )
    receipt.finish("finished", metrics_sha256=file_sha256(folder / "metrics.jsonl"))
    return folder


def _change(run: Path, **facts: Any) -> None:
    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    del content["sha256"]
    write_json(run / "run.json", sealed({**content, **facts}))


def _found(run: Path, here: dict[str, Any], places: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    by_severity: dict[str, list[str]] = {}
    for finding in check(read_run(run), here, places or {}):
        by_severity.setdefault(finding.severity, []).append(f"{finding.where}: {finding.message}")
    return by_severity


def test_where_nothing_changed_everything_is_found_to_be_as_it_was(run: Path, here: dict[str, Any]) -> None:
    assert _found(run, here).keys() == {"ok"}


@pytest.mark.parametrize("name", ["train.jsonl", "val.jsonl", "base/model.safetensors"])
def test_a_changed_file_is_an_error_that_names_it(run: Path, here: dict[str, Any], name: str) -> None:
    path = run.parent / name
    path.write_text("another\n", encoding="utf-8")
    (told,) = _found(run, here)["error"]
    assert told.startswith(f"{path}: differs from run.json")
    path.unlink()
    assert _found(run, here)["error"] == [f"{path}: is not on this machine"]


def test_a_file_that_was_moved_is_found_where_it_is_said_to_be(run: Path, here: dict[str, Any]) -> None:
    places = {"data.train_file": run.parent / "moved.jsonl", "model.model_name_or_path": run.parent / "moved"}
    (run.parent / "train.jsonl").rename(places["data.train_file"])
    (run.parent / "base").rename(places["model.model_name_or_path"])
    assert len(_found(run, here)["error"]) == 2
    assert _found(run, here, {key: str(path) for key, path in places.items()}).keys() == {"ok"}


def test_a_loss_that_was_edited_is_noticed(run: Path, here: dict[str, Any]) -> None:
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n', encoding="utf-8")
    (told,) = _found(run, here)["error"]
    assert told.startswith(f"{run / 'metrics.jsonl'}: differs from run.json")


def test_a_receipt_that_was_edited_is_noticed(run: Path, here: dict[str, Any]) -> None:
    path = run / "run.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"seconds"', '"moments"'), encoding="utf-8")
    assert _found(run, here)["error"] == [f"{path}: was changed after it was written"]


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"state": "interrupted"}, "the run is interrupted; only a finished run can be reproduced"),
        ({"schema_version": 99}, "has schema_version 99, but this kit reads up to"),
        ({"changes_allowed": [{"key": "lora.r", "step": 4}]}, "lora.r was changed at step 4 by --allow-changed"),
        ({"data": []}, "the receipt records no data"),
        ({"base_model": None}, "the receipt records no file of the base model"),
    ],
)
def test_what_leaves_nothing_to_rerun_is_an_error(
    run: Path, here: dict[str, Any], facts: dict[str, Any], told: str
) -> None:
    _change(run, **facts)
    (found,) = _found(run, here)["error"]
    assert told in found


@pytest.mark.parametrize(
    "value", [7, -1.5, "x\0", [[]], [1, None, {}], {"files": 3}, {"a": [1]}, {"name": 5, "files": []}]
)
@pytest.mark.parametrize(
    "key",
    ["platform", "git_revision", "data", "base_model", "metrics_sha256", "changes_allowed", "compute_changes", "lock"],
)
def test_a_receipt_that_says_anything_breaks_no_check(run: Path, here: dict[str, Any], key: str, value: Any) -> None:
    """What somebody put into a file was called a bug of the kit."""
    _change(run, **{key: value})
    findings = check(read_run(run), here, {})
    assert [finding.message for finding in findings if finding.id.endswith(".crashed")] == []
    reasons_for_other_bits(findings, value, "cpu")


def test_another_version_of_a_package_is_a_warning(run: Path, here: dict[str, Any]) -> None:
    _change(run, packages={**here["packages"], "torch": "1.0"})
    assert _found(run, here)["warning"] == [f": torch is {here['packages']['torch']}, was 1.0"]


def test_keys_that_the_code_has_more_or_fewer_of_are_named(run: Path, here: dict[str, Any]) -> None:
    config = RESOLVED.settings.as_mapping()
    del config["training"]["max_grad_norm"]
    config["training"]["of_the_past"] = 1
    _change(run, config=config)
    found = _found(run, here)
    (gone,) = found["warning"]
    assert "has training.of_the_past, which this version of the kit does not" in gone
    (younger,) = [line for line in found["ok"] if "lacks training.max_grad_norm" in line]
    assert "keeps its default" in younger


def test_a_run_that_was_resumed_inexactly_is_not_held_to_bits(run: Path, here: dict[str, Any]) -> None:
    _change(run, resumed_inexactly=True)
    assert len(_found(run, here)["warning"]) == 1


def test_a_run_that_was_resumed_with_another_number_of_threads_is_not_either(run: Path, here: dict[str, Any]) -> None:
    _change(run, compute_changes=[{"step": 4, "key": "threads", "was": 1, "is": 2}])
    (told,) = _found(run, here)["warning"]
    assert "the run computed with threads 1 up to step 4 and 2 after it" in told


def test_a_base_of_the_hub_that_is_not_here_yet_is_downloaded_by_its_commit(
    run: Path, here: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    base = {"name": "nobody/no-such-model", "revision": "main", "revision_resolved": "c0ffee", "files": {"a.json": "1"}}
    _change(run, base_model=base)
    (told,) = _found(run, here)["skipped"]
    assert "not on this machine; the rerun downloads revision c0ffee" in told
