"""Making an adapter portable from the command line."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from kit.cli.command import call
from kit.commands import portable_adapter

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def newer(adapter_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(adapter_run / "adapter", tmp_path / "newer")
    _set(tmp_path / "newer", peft_version="0.21.2", use_dora=False)
    return tmp_path / "newer"


def _set(folder: Path, **fields: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")


def test_what_is_left_out_is_said(newer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(portable_adapter, [str(newer), str(newer.parent / "copy")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "left out (no effect on answers): peft_version",
        f"portable: {newer.parent / 'copy'}",
    ]


def test_what_would_change_the_answers_is_refused_and_nothing_is_written(
    newer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _set(newer, use_dora=True)
    assert call(portable_adapter, [str(newer), str(newer.parent / "copy")]) == 2
    assert "use_dora is set, and DoRA rescales every weight" in capsys.readouterr().err
    assert not (newer.parent / "copy").exists()


def test_a_copy_that_is_there_already_is_left_alone(newer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(portable_adapter, [str(newer), str(newer)]) == 2
    assert "already exists" in capsys.readouterr().err


def test_a_copy_that_is_a_link_to_nowhere_is_not_written_through(newer: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").symlink_to(tmp_path / "elsewhere")
    assert call(portable_adapter, [str(newer), str(tmp_path / "copy")]) == 2
    assert not (tmp_path / "elsewhere").exists()
