"""Room for the next checkpoint is looked for before a save."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kit.run_directory import disk_space


def test_a_save_without_room_does_not_begin(tmp_path: Path) -> None:
    disk_space.require(tmp_path, 1)
    with pytest.raises(OSError, match="no space left") as caught:
        disk_space.require(tmp_path, 10**18)
    assert caught.value.errno == errno.ENOSPC
