"""A changed bit anywhere in a run is found, and its file is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.cli.command import call
from kit.cli.findings import has_errors
from kit.commands import verify as command
from kit.files.digest import file_sha256
from kit.run_directory import checkpoints
from kit.run_directory.receipt import Receipt
from kit.runs.verify import verify

FILES = (
    "run.json",
    "metrics.jsonl",
    "adapter/adapter_model.safetensors",
    "checkpoints/checkpoint-2/state.json",
    "checkpoints/checkpoint-2/manifest.json",
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder, base, data = tmp_path / "run", tmp_path / "base", tmp_path / "rows.jsonl"
    for made in (folder / "adapter", base):
        made.mkdir(parents=True)
    data.write_text("{}\n", encoding="utf-8")
    (base / "model.safetensors").write_bytes(b"base")
    (folder / "metrics.jsonl").write_text('{"step": 1}\n', encoding="utf-8")
    (folder / "adapter/adapter_model.safetensors").write_bytes(b"weights")

    def fill(aside: Path) -> None:
        (aside / "state.json").write_bytes(b"{}")

    written = checkpoints.write(folder / "checkpoints", 2, fill, {})
    receipt = Receipt(
        folder,
        data=[{"path": str(data), "sha256": file_sha256(data)}],
        base_model={"name": str(base), "files": {"model.safetensors": file_sha256(base / "model.safetensors")}},
        checkpoints=[{"name": "checkpoint-2", "manifest_sha256": written.manifest_sha256}],
    )
    receipt.finish(
        "finished",
        metrics_sha256=file_sha256(folder / "metrics.jsonl"),
        adapter_files={"adapter_model.safetensors": file_sha256(folder / "adapter/adapter_model.safetensors")},
    )
    return folder


def test_an_untouched_run_is_verified_whole(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {finding.severity for finding in verify(run)} == {"ok"}
    assert call(command, [str(run)]) == 0
    assert "the files found are as the run wrote them" in capsys.readouterr().out


@pytest.mark.parametrize("name", [*FILES, "../rows.jsonl", "../base/model.safetensors"])
def test_a_flipped_bit_is_found_and_its_file_named(run: Path, name: str) -> None:
    path = run / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    wrong = [finding for finding in verify(run) if finding.severity == "error"]
    assert any(path.name in f"{finding.where}: {finding.message}" for finding in wrong)
    # Where the receipt itself was changed, what it says of the others may be wrong too.
    assert len(wrong) == 1 or name == "run.json"


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(run: Path, name: str) -> None:
    (run / name).unlink()
    assert has_errors(verify(run))


def test_a_checkpoint_that_was_exchanged_for_another_complete_one_is_found(run: Path) -> None:
    def fill(aside: Path) -> None:
        (aside / "state.json").write_bytes(b"[]")

    checkpoints.write(run / "checkpoints", 2, fill, {})
    checkpoints.prune(run / "checkpoints", 1)
    assert [finding.id for finding in verify(run) if finding.severity == "error"] == ["verify.checkpoint"]


def test_what_is_not_on_this_machine_is_said_to_be_unchecked(run: Path) -> None:
    (run.parent / "rows.jsonl").unlink()
    assert [finding.id for finding in verify(run) if finding.severity == "skipped"] == ["verify.data"]


def test_as_json_it_is_one_object(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "metrics.jsonl").write_bytes(b"")
    assert call(command, [str(run), "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert (content["schema_version"], content["verdict"]) == (1, "failed")


def test_wrong_use_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, [str(tmp_path / "nowhere")]) == 2
    assert "make verify RUN=" in capsys.readouterr().err


def test_a_receipt_that_is_none_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_bytes(b"{")
    assert call(command, [str(tmp_path)]) == 1
    assert "has no readable run.json" in capsys.readouterr().out


@pytest.mark.parametrize("key", ["metrics_sha256", "adapter_files", "checkpoints", "data", "base_model"])
@pytest.mark.parametrize("value", [5, "text", [5], [{}], {"a": 5}, {"name": "\x00", "files": {"\ud800": "x"}}, True])
def test_whatever_a_changed_receipt_says_the_change_is_named_and_no_check_crashes(
    run: Path, key: str, value: object
) -> None:
    receipt = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({**receipt, key: value}), encoding="utf-8")
    findings = verify(run)
    assert not [finding for finding in findings if finding.id.endswith(".crashed")]
    assert any(finding.id == "verify.receipt" and finding.severity == "error" for finding in findings)
