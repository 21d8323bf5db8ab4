"""Room for the next checkpoint is looked for before a run and before a save."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.run_folder import disk_space

if TYPE_CHECKING:
    from pathlib import Path

    from kit.config.settings import Settings

GB = 10**9


def _settings(folder: Path, **changes: object) -> Settings:
    overrides = {"training.output_dir": str(folder / "run"), **changes}
    return resolve(PROJECT_ROOT / "configs/training_config_h100.yaml", overrides).settings


def test_a_checkpoint_of_the_7b_run_takes_half_a_gigabyte(tmp_path: Path) -> None:
    size = disk_space.checkpoint_bytes(_settings(tmp_path))
    assert size is not None
    assert 0.50 * GB < size < 0.51 * GB  # 41.9 M weights of 4 bytes, and 8 bytes of moments for each


def test_a_model_of_unknown_shape_is_not_judged(tmp_path: Path) -> None:
    settings = _settings(tmp_path, **{"model.model_name_or_path": "somebody/something"})
    assert disk_space.checkpoint_bytes(settings) is None
    assert disk_space.space_findings(settings) == []


@pytest.mark.parametrize(("free", "severity"), [(0.5, "error"), (1.0, "warning"), (3.0, "ok")])
def test_the_next_checkpoint_must_fit_and_all_that_are_kept_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, severity: str
) -> None:
    monkeypatch.setattr(disk_space, "free_bytes", lambda _folder: int(free * GB))
    (finding,) = disk_space.space_findings(_settings(tmp_path))
    assert (finding.id, finding.severity) == ("run.disk_space", severity)


def test_the_disk_of_a_folder_that_is_still_to_be_made_is_asked(tmp_path: Path) -> None:
    assert disk_space.free_bytes(tmp_path / "a" / "b") > 0


def test_a_save_without_room_does_not_begin(tmp_path: Path) -> None:
    disk_space.require(tmp_path, 1)
    with pytest.raises(OSError, match="no space left") as caught:
        disk_space.require(tmp_path, 10**18)
    assert caught.value.errno == errno.ENOSPC
