"""The base model's files are named by what is in them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from kit.model import weights
from kit.model.base import find_base
from kit.model.files import ModelFileError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


def describe_base(name: str, revision: str | None) -> dict[str, Any]:
    return weights.describe_base(find_base(name, revision, download=True))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_folder_with_one_file_of_weights(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json", "notes.txt"):
        (tmp_path / name).write_bytes(b"{}")
    base = describe_base(str(tmp_path), None)
    assert base["files"] == dict.fromkeys(("config.json", "model.safetensors", "tokenizer.json"), _sha256(b"{}"))
    assert base["revision_resolved"] is None


def test_shards_are_those_the_index_names(tmp_path: Path) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.dumps({"weight_map": {"a": shards[0], "b": shards[1], "c": shards[1]}}).encode()
    (tmp_path / "model.safetensors.index.json").write_bytes(index)
    (tmp_path / "config.json").write_bytes(b"{}")
    for name in (*shards, "consolidated.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    files = describe_base(str(tmp_path), None)["files"]
    assert {name: files[name] for name in shards} == {name: _sha256(name.encode()) for name in shards}
    assert "consolidated.safetensors" not in files


def test_the_hubs_cache_has_hashed_its_large_files_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "0123abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / ("ab" * 32)).write_bytes(b"weights")
    (blobs / "0a1b2c").write_bytes(b"{}")
    (snapshot / "model.safetensors").symlink_to(blobs / ("ab" * 32))
    (snapshot / "config.json").symlink_to(blobs / "0a1b2c")

    def find(_name: str, filename: str, _revision: object, *, download: bool = False) -> Path:
        if not (snapshot / filename).exists():
            raise ModelFileError(f"no {filename} ({download})")
        return snapshot / filename

    monkeypatch.setattr("kit.model.base.find", find)
    base = describe_base("somebody/model", "main")
    assert base["files"] == {"model.safetensors": "ab" * 32, "config.json": _sha256(b"{}")}
    assert (base["revision"], base["revision_resolved"]) == ("main", "0123abc")


def test_a_folder_without_weights_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    with pytest.raises(ModelFileError, match=r"has no model\.safetensors"):
        describe_base(str(tmp_path), None)
