"""A run goes on only as the same run; what differs is named, and what may differ is listed."""

from __future__ import annotations

import hashlib
import json
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config import schema
from kit.config.resolve import resolve
from kit.data.batch_order import order_batches
from kit.data.encoding import IGNORE_INDEX, EncodedRow
from kit.data.token_rows import TokenRows
from kit.run_directory import checkpoints
from kit.stacks.stack import stack_of
from kit.train import resume
from kit.train.resume import CANNOT_CHANGE, MAY_DIFFER, StartPoint, decide, differences, identity_of

DEMO = PROJECT_ROOT / "configs" / "training_config_demo.yaml"
STACK = stack_of({"torch": "2.10.0", "transformers": "5.23.0", "peft": "0.21.2"})
BASE = {"files": {"model.safetensors": "ab" * 32}}
ROWS = tuple(EncodedRow([1, 2, number], [IGNORE_INDEX, 2, number], number, 3) for number in range(1, 9))


def _identity(rows: tuple[EncodedRow, ...] = ROWS, **changes: Any) -> dict[str, Any]:
    settings = resolve(DEMO, {key.replace("__", "."): value for key, value in changes.items()}).settings
    plan = order_batches(settings, TokenRows.of(rows), TokenRows.of(rows[:2]))
    identity = identity_of(settings, plan, STACK, "cpu", BASE)
    return dict(json.loads(json.dumps(identity)))


IDENTITY = _identity()


def _save(folder: Path, step: int, identity: dict[str, Any] = IDENTITY) -> Path:
    def fill(aside: Path) -> None:
        (aside / "state.json").write_text("{}", encoding="utf-8")

    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    return checkpoints.write(folder / "checkpoints", step, fill, {"identity": identity}).folder


def _errors(start: StartPoint) -> list[str]:
    return [f"{finding.message} | {finding.fix}" for finding in start.findings if finding.severity == "error"]


@pytest.mark.parametrize("piece", [1, 3, 10_000])
@pytest.mark.parametrize("steps", [1, 7])
def test_rows_and_order_have_the_hashes_that_older_checkpoints_hold(
    monkeypatch: pytest.MonkeyPatch, piece: int, steps: int
) -> None:
    monkeypatch.setattr(resume, "_PIECE", piece)
    changes = {"training__max_steps": steps, "training__per_device_train_batch_size": 1}
    changes["training__gradient_accumulation_steps"] = 1
    identity = _identity(**changes)
    settings = resolve(DEMO, {key.replace("__", "."): value for key, value in changes.items()}).settings
    order = tuple(order_batches(settings, TokenRows.of(ROWS)).order)
    assert identity["data.order"] == hashlib.sha256(repr((order, 1)).encode()).hexdigest()
    digest = hashlib.sha256()
    for row in ROWS:
        for numbers in (row.input_ids, row.labels):
            digest.update(len(numbers).to_bytes(8, "little") + array("q", numbers).tobytes())
    assert identity["data.rows"] == digest.hexdigest()


def test_a_key_that_is_younger_than_a_run_had_its_default_then(tmp_path: Path) -> None:
    """Each new key stranded every run that had been begun before."""
    older = {key: value for key, value in IDENTITY.items() if key != "training.weight_decay"}
    _save(tmp_path, 2, older)
    assert _errors(decide("auto", tmp_path, IDENTITY, ())) == []
    (refused,) = _errors(decide("auto", tmp_path, _identity(training__weight_decay=0.25), ()))
    assert "training.weight_decay is 0.25 but was 0.01 in" in refused
    (tmp_path / "adapter").mkdir()
    receipt = {"state": "finished", "identity": older}
    (tmp_path / "run.json").write_text(json.dumps(receipt), encoding="utf-8")
    assert decide("auto", tmp_path, IDENTITY, ()).is_finished
    assert not decide("auto", tmp_path, _identity(training__weight_decay=0.25), ()).is_finished


@pytest.mark.parametrize("given", [".", "../checkpoint-2"])
def test_a_relative_path_does_not_hide_that_a_checkpoint_is_not_the_runs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    folder = _save(tmp_path, 2)
    receipt = {"checkpoints": [{"name": folder.name, "manifest_sha256": "0" * 64}]}
    (tmp_path / "run.json").write_text(json.dumps(receipt), encoding="utf-8")
    monkeypatch.chdir(folder)
    (refused,) = _errors(decide(given, tmp_path / "other", IDENTITY, ()))
    assert "not the one in run.json" in refused


def test_with_nothing_there_auto_begins(tmp_path: Path) -> None:
    start = decide("auto", tmp_path / "run", IDENTITY, ())
    assert (start.checkpoint, start.findings, start.is_finished) == (None, [], False)


def _receipt(folder: Path, **facts: Any) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    receipt = {"state": "interrupted", "identity": IDENTITY, "bad_losses": [{"step": 1}], "wandb_id": "0" * 8, **facts}
    (folder / "run.json").write_text(json.dumps(receipt), encoding="utf-8")
    return receipt


def test_a_run_that_begins_goes_on_with_the_receipt_of_its_own_earlier_attempt_alone(tmp_path: Path) -> None:
    """Another configuration's bad losses, sessions and run at wandb were taken for this one's."""
    receipt = _receipt(tmp_path)
    assert decide("auto", tmp_path, IDENTITY, ()) == StartPoint(earlier=receipt)
    assert decide("auto", tmp_path, _identity(training__seed=1), ()) == StartPoint()


def test_a_run_that_begins_elsewhere_has_what_the_other_ones_receipt_tells_of_its_steps(tmp_path: Path) -> None:
    folder, receipt = _save(tmp_path / "one", 2), _receipt(tmp_path / "one")
    for given in (folder, tmp_path / "one"):
        start = decide(str(given), tmp_path / "two", IDENTITY, ())
        assert start.earlier == {key: value for key, value in receipt.items() if key != "wandb_id"}
        assert decide(str(given), tmp_path / "one", IDENTITY, ()).earlier == receipt


@pytest.mark.parametrize(
    "facts", [{"state": "finished"}, {"identity": _identity(training__seed=1)}, {"identity": None}]
)
def test_no_other_run_gives_way_to_one_that_is_gone_on_with(tmp_path: Path, facts: dict[str, Any]) -> None:
    """It was replaced without --overwrite, and its sessions and checkpoints were taken for the other's."""
    folder = _save(tmp_path / "one", 2)
    _receipt(tmp_path / "two", **facts)
    (refused,) = _errors(decide(str(folder), tmp_path / "two", IDENTITY, ()))
    assert refused.startswith("holds another run | rename this run")
    receipt = _receipt(tmp_path / "two")
    start = decide(str(folder), tmp_path / "two", IDENTITY, ())
    assert (_errors(start), start.earlier) == ([], receipt)


def test_an_adapter_without_a_checkpoint_does_not_give_way_to_a_run_that_begins(tmp_path: Path) -> None:
    """With its receipt lost and its checkpoints deleted a finished run was trained again in its place."""
    (tmp_path / "adapter").mkdir()
    for content in (None, "{", json.dumps({"state": "interrupted", "identity": IDENTITY})):
        if content:
            (tmp_path / "run.json").write_text(content, encoding="utf-8")
        (refused,) = _errors(decide("auto", tmp_path, IDENTITY, ()))
        assert refused.startswith("holds an adapter but no checkpoint to resume from | rename this run")


def test_a_receipt_that_cannot_be_read_is_told_before_it_is_replaced(tmp_path: Path) -> None:
    _save(tmp_path, 2)
    (tmp_path / "run.json").write_text('{"sessions": [', encoding="utf-8")
    start = decide("auto", tmp_path, IDENTITY, ())
    assert (start.checkpoint is not None, start.earlier) == (True, {})
    assert [finding.id for finding in start.findings] == ["resume.receipt", "resume.checkpoint"]


def test_the_newest_complete_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    for step in (2, 4):
        _save(tmp_path, step)
    start = decide("auto", tmp_path, IDENTITY, ())
    assert start.checkpoint is not None
    assert (start.checkpoint.step, _errors(start)) == (4, [])


def test_a_damaged_newest_one_is_told_and_the_one_before_is_taken(tmp_path: Path) -> None:
    for step in (2, 4):
        _save(tmp_path, step)
    (tmp_path / "checkpoints/checkpoint-4/state.json").write_text("{ }", encoding="utf-8")
    start = decide("auto", tmp_path, IDENTITY, ())
    assert start.checkpoint is not None
    assert start.checkpoint.step == 2
    assert "state.json" in next(finding.message for finding in start.findings if finding.severity == "warning")


def test_damaged_ones_alone_stop_the_run_instead_of_beginning_again_in_silence(tmp_path: Path) -> None:
    (_save(tmp_path, 2) / "state.json").unlink()
    assert "none of them complete" in _errors(decide("auto", tmp_path, IDENTITY, ()))[0]


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("training.learning_rate", {"training__learning_rate": 1e-5}),
        ("training.seed", {"training__seed": 7}),
        ("lora.lora_dropout", {"lora__lora_dropout": 0.5}),
        ("data.order", {"training__max_steps": 3}),
        ("data.rows", {"rows": (*ROWS[:-1], replace(ROWS[-1], input_ids=[1, 2, 99]))}),
        ("data.rows", {"rows": (*ROWS[:-1], replace(ROWS[-1], labels=[1, 2, 8]))}),
    ],
)
def test_what_matters_is_refused_by_name_unless_it_is_allowed(
    tmp_path: Path, key: str, changes: dict[str, Any]
) -> None:
    _save(tmp_path, 2)
    now = _identity(**changes)
    refused = _errors(decide("auto", tmp_path, now, ()))
    assert any(text.startswith(f"{key} is ") and f"--allow-changed {key}" in text for text in refused)
    start = decide("auto", tmp_path, now, list(differences(IDENTITY, now)))
    assert _errors(start) == []
    assert start.allowed[key] == (IDENTITY[key], now[key])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("packages.torch", "2.11.0"),
        ("stack", "reference"),
        ("platform", "h100"),
        ("base_model.model.safetensors", "cd"),
    ],
)
def test_versions_machine_and_base_are_compared(tmp_path: Path, key: str, value: str) -> None:
    _save(tmp_path, 2)
    assert any(
        text.startswith(f"{key} is {value}") for text in _errors(decide("auto", tmp_path, IDENTITY | {key: value}, ()))
    )


def test_what_the_saved_state_has_the_shape_of_cannot_be_allowed(tmp_path: Path) -> None:
    _save(tmp_path, 2)
    (refused,) = _errors(decide("auto", tmp_path, _identity(lora__r=4), ["lora.r"]))
    assert "lora.r is 4" in refused
    assert "--allow-changed" not in refused


def test_when_and_where_something_is_written_may_differ(tmp_path: Path) -> None:
    _save(tmp_path, 2)
    now = _identity(training__logging_steps=7, training__save_steps=9, training__run_name="other")
    assert _errors(decide("auto", tmp_path, now, ())) == []


def test_the_lists_name_keys_that_exist() -> None:
    assert set(schema.keys()) >= (MAY_DIFFER | CANNOT_CHANGE)
    assert not MAY_DIFFER & CANNOT_CHANGE


def test_every_other_key_is_compared() -> None:
    assert set(schema.keys()) - MAY_DIFFER <= set(IDENTITY)


def _finish(folder: Path, identity: dict[str, Any]) -> None:
    (folder / "adapter").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"state": "finished", "identity": identity}), encoding="utf-8")


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    _finish(tmp_path, IDENTITY)
    assert decide("auto", tmp_path, IDENTITY, ()).is_finished


def test_a_finished_run_of_another_configuration_is_not_taken_for_this_one(tmp_path: Path) -> None:
    _finish(tmp_path, IDENTITY)
    start = decide("auto", tmp_path, _identity(training__seed=7), ["training.seed"])
    assert not start.is_finished
    assert "training.seed (42, now 7)" in _errors(start)[0]


def test_a_path_names_a_checkpoint_or_a_run(tmp_path: Path) -> None:
    folders = [_save(tmp_path / "old", step) for step in (2, 4)]
    for path, step in ((folders[0], 2), (tmp_path / "old", 4)):
        start = decide(str(path), tmp_path / "new", IDENTITY, ())
        assert start.checkpoint is not None
        assert start.checkpoint.step == step


def test_a_path_to_something_else_is_refused(tmp_path: Path) -> None:
    folder = _save(tmp_path, 2)
    (folder / "state.json").unlink()
    for path in (folder, tmp_path):
        assert _errors(decide(str(path), tmp_path, IDENTITY, ()))


def _receipt_with(folder: Path, name: str, manifest_sha256: str) -> None:
    entry = {"name": name, "step": 4, "manifest_sha256": manifest_sha256}
    (folder / "run.json").write_text(json.dumps({"state": "interrupted", "checkpoints": [entry]}), encoding="utf-8")


@pytest.mark.parametrize("how", ["auto", "run", "checkpoint"])
def test_a_checkpoint_that_is_whole_and_not_the_runs_own_is_refused(tmp_path: Path, how: str) -> None:
    """A manifest vouches for its files, and anybody can write one: the receipt vouches for the manifest."""
    folder = _save(tmp_path, 4)
    way = {"auto": "auto", "run": str(tmp_path), "checkpoint": str(folder)}[how]
    _receipt_with(tmp_path, "checkpoint-4", checkpoints.read(folder).manifest_sha256)
    assert _errors(decide(way, tmp_path, IDENTITY, ())) == []
    _receipt_with(tmp_path, "checkpoint-4", "0" * 64)
    start = decide(way, tmp_path, IDENTITY, ())
    assert start.checkpoint is None
    (message,) = _errors(start)
    assert "not the one in run.json" in message


def test_a_checkpoint_that_was_written_when_the_run_was_killed_is_gone_on_from(tmp_path: Path) -> None:
    _receipt_with(tmp_path, "checkpoint-2", "0" * 64)
    _save(tmp_path, 4)
    start = decide("auto", tmp_path, IDENTITY, ())
    assert start.checkpoint is not None
    assert _errors(start) == []


@pytest.mark.parametrize("identity", [None, "text", 5, ["a"]])
def test_a_finished_run_whose_receipt_was_spoilt_is_not_taken_for_this_one(tmp_path: Path, identity: object) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "run.json").write_text(json.dumps({"state": "finished", "identity": identity}), encoding="utf-8")
    assert "holds a finished run that differs in" in _errors(decide("auto", tmp_path, IDENTITY, ()))[0]
