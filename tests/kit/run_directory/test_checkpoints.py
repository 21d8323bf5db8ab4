"""A folder is a checkpoint when it is complete to the last bit, and never before."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest

from killed import killed_at
from kit.run_directory import checkpoints
from kit.run_directory.checkpoints import DamagedCheckpointError

FILES = {"adapter_model.safetensors": b"weights" * 10, "state.json": b'{"step": 1}\n', "empty": b""}


def _fill(folder: Path) -> None:
    for name, content in FILES.items():
        (folder / name).write_bytes(content)


def _write(parent: Path, step: int) -> checkpoints.Checkpoint:
    return checkpoints.write(parent, step, _fill, {"identity": {"lora.r": 16}})


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = _write(tmp_path / "checkpoints", 7)
    read = checkpoints.read(tmp_path / "checkpoints" / "checkpoint-7")
    assert read == written
    assert (read.step, read.facts, set(read.files)) == (7, {"identity": {"lora.r": 16}}, set(FILES))
    assert read.size_bytes == sum(map(len, FILES.values()))


def test_nothing_but_the_checkpoint_is_left(tmp_path: Path) -> None:
    _write(tmp_path, 7)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-7"]


@pytest.mark.parametrize("name", [*FILES, checkpoints.MANIFEST])
def test_a_missing_file_is_found_and_named(tmp_path: Path, name: str) -> None:
    folder = _write(tmp_path, 7).folder
    (folder / name).unlink()
    with pytest.raises(DamagedCheckpointError, match=name):
        checkpoints.read(folder)


@pytest.mark.parametrize(
    ("name", "stride"), [("adapter_model.safetensors", 1), ("state.json", 1), (checkpoints.MANIFEST, 7)]
)
def test_a_flipped_bit_is_found_and_its_file_named(tmp_path: Path, name: str, stride: int) -> None:
    folder = _write(tmp_path, 7).folder
    content = (folder / name).read_bytes()
    for position in range(0, len(content) * 8, stride):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        (folder / name).write_bytes(flipped)
        with pytest.raises(DamagedCheckpointError, match=name):
            checkpoints.read(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'"text"', b"{}", b"\xff", b"[" * 5000, b"NaN"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = _write(tmp_path, 7).folder
    (folder / checkpoints.MANIFEST).write_bytes(content)
    with pytest.raises(DamagedCheckpointError):
        checkpoints.read(folder)


def test_a_checkpoint_under_another_steps_name_is_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path, 7).folder.rename(tmp_path / "checkpoint-9")
    with pytest.raises(DamagedCheckpointError, match="step 7"):
        checkpoints.read(folder)


def test_the_newest_complete_one_is_taken_and_the_damaged_ones_are_told(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        _write(tmp_path, step)
    (tmp_path / "checkpoint-100" / "state.json").write_bytes(b"half")
    (tmp_path / ".checkpoint-200.partial").mkdir()
    (tmp_path / "checkpoint-last").mkdir()
    found, damaged = checkpoints.newest(tmp_path)
    assert found is not None
    assert found.step == 10
    assert [finding.where for finding in damaged] == [str(tmp_path / "checkpoint-100")]
    assert "state.json" in damaged[0].message


def test_no_folder_is_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path / "nowhere") == (None, [])


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    _write(tmp_path, 5)

    def full(folder: Path) -> None:
        _fill(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoints.write(tmp_path, 10, full, {})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]
    checkpoints.read(tmp_path / "checkpoint-5")


def test_a_folder_that_vanished_is_an_error_and_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _write(tmp_path / "gone" / "checkpoints", 5)
    assert not (tmp_path / "gone").exists()


def test_a_damaged_one_gives_way_to_a_new_one_of_its_step(tmp_path: Path) -> None:
    (_write(tmp_path, 5).folder / "state.json").write_bytes(b"")
    _write(tmp_path, 5)
    checkpoints.read(tmp_path / "checkpoint-5")
    checkpoints.prune(tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (9, 10, 100, 11):
        _write(tmp_path, step)
    checkpoints.prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-100", "checkpoint-11"]


def test_killed_before_any_file_operation_a_save_leaves_a_complete_checkpoint(tmp_path: Path) -> None:
    """Every point at which a save can be killed, one after the other, with only one checkpoint kept."""
    operations = 0
    while True:
        parent = tmp_path / str(operations)
        parent.mkdir()
        _write(parent, 5)

        def save(parent: Path = parent) -> None:
            _write(parent, 6)
            checkpoints.prune(parent, 1)

        if not killed_at(operations, save):
            break
        found, damaged = checkpoints.newest(parent)
        assert found is not None, f"the only complete checkpoint was lost at file operation {operations}"
        assert damaged == []
        operations += 1
        shutil.rmtree(parent)
    assert operations > 20
    assert [path.name for path in parent.iterdir()] == ["checkpoint-6"]


def test_a_manifest_is_json_for_anybody(tmp_path: Path) -> None:
    content = json.loads((_write(tmp_path, 7).folder / checkpoints.MANIFEST).read_text(encoding="utf-8"))
    assert content["schema_version"] == 1
    assert set(content["files"]) == set(FILES)


@pytest.mark.parametrize("name", ["optimizer.bin", "optimizer.safetensors"])
def test_a_file_that_the_manifest_does_not_name_is_not_loaded(tmp_path: Path, name: str) -> None:
    folder = _write(tmp_path, 3).folder
    (folder / ".DS_Store").touch()
    assert checkpoints.read(folder).step == 3
    (folder / name).touch()
    with pytest.raises(DamagedCheckpointError, match=f"holds {name}, which its manifest.json does not name"):
        checkpoints.read(folder)


def test_a_folder_that_holds_something_else_is_neither_deleted_nor_counted(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        _write(tmp_path, step)
    (tmp_path / "checkpoint-2" / "notes.txt").touch()
    (tmp_path / "checkpoint-500").mkdir()  # another program's
    (tmp_path / "checkpoint-500" / "rng_state.pth").touch()
    (tmp_path / ".checkpoint-notes").mkdir()
    shutil.copytree(tmp_path / "checkpoint-6", tmp_path / "checkpoint-7")  # put there by somebody
    checkpoints.prune(tmp_path, 1, newest=6)
    there = sorted(path.name for path in tmp_path.iterdir())
    assert there == [".checkpoint-notes", "checkpoint-2", "checkpoint-500", "checkpoint-6", "checkpoint-7"]


def test_a_folder_that_gives_way_keeps_what_else_it_holds(tmp_path: Path) -> None:
    (_write(tmp_path, 5).folder / "notes.txt").write_text("mine", encoding="utf-8")
    _write(tmp_path, 5)
    checkpoints.prune(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-5", "checkpoint-5.kept-1"]
    assert (tmp_path / "checkpoint-5.kept-1" / "notes.txt").read_text(encoding="utf-8") == "mine"
