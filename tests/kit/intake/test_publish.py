"""Files appear together or not at all, and no foreign file is lost."""

from __future__ import annotations

import contextlib
import errno
import functools
from pathlib import Path

import pytest

from killed import killed_at
from kit.intake.publish import OccupiedError, StagedFolder, check_free


def _write(folder: Path, text: str, *, done: bool = True, meanwhile: str = "", overwrite: bool = True) -> None:
    with StagedFolder(folder, overwrite=overwrite) as draft:
        for name in ("train.jsonl", "val.jsonl"):
            (draft.path / name).write_text(text, encoding="utf-8")
        if not done:
            raise KeyboardInterrupt
        if meanwhile:
            folder.mkdir(exist_ok=True)
            (folder / meanwhile).write_text("mine", encoding="utf-8")
        draft.publish()


def _content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_a_folder_appears_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    _write(tmp_path / "a" / "b", "new")
    assert _content(tmp_path / "a" / "b") == {"train.jsonl": "new", "val.jsonl": "new"}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_an_older_one_is_replaced_whole(tmp_path: Path) -> None:
    _write(tmp_path / "b", "old")
    (tmp_path / "b" / "rejects.jsonl").touch()
    _write(tmp_path / "b", "new")
    assert _content(tmp_path / "b") == {"train.jsonl": "new", "val.jsonl": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_is_interrupted_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path / "deep" / "b", "new", done=False)
    assert list(tmp_path.iterdir()) == []
    _write(tmp_path / "b", "old")
    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path / "b", "new", done=False)
    assert _content(tmp_path / "b") == {"train.jsonl": "old", "val.jsonl": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_when_the_last_step_fails_the_old_one_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "b", "old")
    real = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if ".new-" in path.name:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="Input/output"):
        _write(tmp_path / "b", "new")
    assert _content(tmp_path / "b") == {"train.jsonl": "old", "val.jsonl": "old"}


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    _write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "train.jsonl").exists()


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    dead = 2**22 + 1  # above every process number
    (tmp_path / f".b.new-{dead}").mkdir()
    (tmp_path / f".b.new-{dead}" / "train.jsonl").write_text("new", encoding="utf-8")
    (tmp_path / ".b.replaced").mkdir()
    (tmp_path / ".b.replaced" / "train.jsonl").write_text("old", encoding="utf-8")
    (tmp_path / ".b.new-notes").mkdir()  # not the kit's
    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path / "b", "new", done=False)
    assert _content(tmp_path / "b") == {"train.jsonl": "old"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.new-notes", "b"]


@pytest.mark.parametrize(
    ("names", "overwrite", "message"),
    [
        (["train.jsonl"], False, "already contains data (train.jsonl)"),
        (["train.jsonl", "notes.txt"], True, "contains other files (notes.txt)"),
        (["deeper/x"], True, "contains other files (deeper)"),
    ],
)
def test_a_folder_in_use_is_not_replaced(tmp_path: Path, names: list[str], overwrite: bool, message: str) -> None:
    for name in names:
        (tmp_path / "b" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "b" / name).touch()
    with pytest.raises(OccupiedError) as caught:
        check_free(tmp_path / "b", overwrite=overwrite)
    assert str(caught.value).startswith(message)
    assert caught.value.fix


def test_a_file_in_the_way_is_refused_and_free_places_are_fine(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OccupiedError, match="is a file"):
        check_free(tmp_path / "file", overwrite=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train.jsonl").touch()
    check_free(tmp_path / "none", overwrite=False)
    check_free(tmp_path / "empty", overwrite=False)
    check_free(tmp_path / "own", overwrite=True)


@pytest.mark.parametrize("there", [False, True])
def test_what_others_put_there_meanwhile_is_kept(tmp_path: Path, there: bool) -> None:
    if there:
        _write(tmp_path / "b", "old")
    _write(tmp_path / "b", "new", meanwhile="notes.txt")
    assert _content(tmp_path / "b") == {"train.jsonl": "new", "val.jsonl": "new", "notes.txt": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_data_put_there_meanwhile_is_never_replaced_unasked(tmp_path: Path) -> None:
    with pytest.raises(OccupiedError, match="added meanwhile"):
        _write(tmp_path / "b", "new", meanwhile="train.jsonl", overwrite=False)
    assert _content(tmp_path / "b") == {"train.jsonl": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_folder_under_the_name_of_a_file_is_somebodys(tmp_path: Path) -> None:
    (tmp_path / "b" / "train.jsonl").mkdir(parents=True)
    with pytest.raises(OccupiedError, match=r"contains other files \(train.jsonl\)"):
        check_free(tmp_path / "b", overwrite=True)


def test_one_command_at_a_time_writes_a_folder(tmp_path: Path) -> None:
    with StagedFolder(tmp_path / "b") as draft:
        with pytest.raises(OccupiedError, match="is being written by another command"):
            _write(tmp_path / "b", "other")
        (draft.path / "train.jsonl").write_text("mine", encoding="utf-8")
        draft.publish()
    with pytest.raises(OccupiedError, match="already contains data"):  # checked before the other one ended
        _write(tmp_path / "b", "other", overwrite=False)
    assert _content(tmp_path / "b") == {"train.jsonl": "mine"}


def test_killed_before_any_file_operation_a_draft_leaves_the_old_files_or_the_new(tmp_path: Path) -> None:
    operations, was_killed = 0, True
    while was_killed:
        folder = tmp_path / str(operations) / "b"
        _write(folder, "old")
        was_killed = killed_at(operations, functools.partial(_write, folder, "new", meanwhile="notes.txt"))
        if folder.exists():  # it is away between two renames
            assert _texts(folder) in ({"old"}, {"new"}), operations
        with contextlib.suppress(OccupiedError, KeyboardInterrupt):  # for the notes, or the test interrupts
            _write(folder, "never", done=False)
        assert _texts(folder) == {"old"} or _content(folder)["notes.txt"] == "mine", operations
        assert [path.name for path in folder.parent.iterdir()] == ["b"]
        operations += 1
    assert operations > 20
    assert _content(folder) == {"train.jsonl": "new", "val.jsonl": "new", "notes.txt": "mine"}


def _texts(folder: Path) -> set[str]:
    return {text for name, text in _content(folder).items() if name != "notes.txt"}
