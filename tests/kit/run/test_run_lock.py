"""One run in one folder at a time, and no lock outlives its holder."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from kit.run.run_lock import RunLock

if TYPE_CHECKING:
    from pathlib import Path


def test_a_second_run_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    first, second = RunLock(tmp_path / "run"), RunLock(tmp_path / "run")
    assert first.acquire() == []
    (finding,) = second.acquire()
    assert (finding.id, finding.severity, finding.where) == ("run.locked", "error", str(tmp_path / "run"))
    assert f"process {os.getpid()} on " in finding.message


def test_a_released_lock_leaves_nothing_and_can_be_taken_again(tmp_path: Path) -> None:
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    first.acquire()
    first.release()
    assert list(tmp_path.iterdir()) == []
    assert second.acquire() == []
    first.release()  # no longer ours
    assert RunLock(tmp_path).acquire() != []
    second.release()


def test_the_lock_of_a_holder_that_was_killed_is_free(tmp_path: Path) -> None:
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        RunLock(tmp_path).acquire()
        os.write(tell, b"x")
        signal.pause()
    assert os.read(ready, 1) == b"x"
    mine = RunLock(tmp_path)
    try:
        assert mine.acquire() != []
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert (tmp_path / ".lock").exists()
    assert mine.acquire() == []
    mine.release()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"):
        RunLock(tmp_path / "run").acquire()
    assert precious.read_text() == "mine"
