"""One run in one folder at a time, and no lock outlives its holder."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from typing import TYPE_CHECKING, NoReturn

import pytest

from kit.files.folder_lock import FolderLock
from kit.run_directory.liveness import take_run_lock

if TYPE_CHECKING:
    from pathlib import Path


def test_a_second_run_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path / "run"), FolderLock(tmp_path / "run")
    assert first.acquire() is None
    (finding,) = take_run_lock(second)
    assert (finding.id, finding.severity, finding.where) == ("run.locked", "error", str(tmp_path / "run"))
    assert f"process {os.getpid()} on " in finding.message


def test_a_released_lock_leaves_nothing_and_can_be_taken_again(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.acquire()
    first.release()
    assert list(tmp_path.iterdir()) == []
    assert second.acquire() is None
    first.release()  # no longer ours
    assert FolderLock(tmp_path).acquire() is not None
    second.release()


def test_the_lock_of_a_holder_that_was_killed_is_free(tmp_path: Path) -> None:
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        FolderLock(tmp_path).acquire()
        os.write(tell, b"x")
        signal.pause()
    assert os.read(ready, 1) == b"x"
    mine = FolderLock(tmp_path)
    try:
        assert mine.acquire() is not None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert (tmp_path / ".lock").exists()
    assert mine.acquire() is None
    mine.release()


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def without_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has no flock, as Lustre mounted without it."""

    def refuse(_descriptor: int, _how: int) -> NoReturn:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("without_flock")
def test_without_flock_the_second_run_is_refused_all_the_same(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    assert first.acquire() is None
    (finding,) = take_run_lock(second)
    assert (finding.id, finding.where) == ("run.locked", str(tmp_path))
    assert f"process {os.getpid()} on " in finding.message
    assert f"rm {tmp_path}/.lock.held" in finding.fix
    first.release()
    assert list(tmp_path.iterdir()) == []
    assert second.acquire() is None
    second.release()


@pytest.mark.usefixtures("without_flock")
def test_without_flock_the_lock_of_a_holder_that_was_killed_is_free(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        held = FolderLock(tmp_path)
        held.acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    assert left.read_text().startswith(f"{child}\n")
    mine = FolderLock(tmp_path)
    assert mine.acquire() is None
    mine.release()


@pytest.mark.usefixtures("without_flock")
def test_without_flock_a_holder_on_another_host_is_never_taken_for_dead(tmp_path: Path) -> None:
    (tmp_path / ".lock.held").write_text("4000000\nnode7\n")
    holder = FolderLock(tmp_path).acquire()
    assert holder is not None
    assert (holder.name, holder.file) == ("process 4000000 on node7", tmp_path / ".lock.held")
    (tmp_path / ".lock.held").unlink()  # as the fix says
    assert FolderLock(tmp_path).acquire() is None


def test_another_failure_to_lock_is_not_taken_for_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int, _how: int) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output"):
        FolderLock(tmp_path).acquire()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"):
        FolderLock(tmp_path / "run").acquire()
    assert precious.read_text() == "mine"
