"""A folder takes another's place, whose own files go and whose others come along."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.files.own_files import put_back, take_place


def _own(_folder: Path) -> set[str]:
    return {"model", "card"}


def _content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def _folder(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text, encoding="utf-8")
    return path


def test_the_kits_files_go_and_others_come_along(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "merged", model="old", card="old", gguf="mine")
    take_place(_folder(tmp_path / ".merged.partial", model="new"), folder, _own)
    assert _content(folder) == {"model": "new", "gguf": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


@pytest.mark.parametrize("stands", [False, True])
def test_what_a_killed_process_left_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stands: bool) -> None:
    folder, aside = _folder(tmp_path / "merged", model="old", gguf="mine"), _folder(tmp_path / "aside", model="new")
    real = Path.replace

    def die(path: Path, target: Path) -> None:
        if stands:
            real(path, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        take_place(aside, folder, _own)
    put_back(folder, _own)
    assert _content(folder) == {"model": "new" if stands else "old", "gguf": "mine"}
