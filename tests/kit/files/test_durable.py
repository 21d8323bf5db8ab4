"""What is flushed, and what a disk may refuse of it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from kit.files.durable import fsync_folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("number", "is_fatal"), [(errno.EINVAL, False), (errno.EIO, True), (errno.ENOSPC, True)])
def test_a_file_system_that_flushes_no_folder_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_fatal: bool
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    if is_fatal:
        with pytest.raises(OSError, match=os.strerror(number)):
            fsync_folder(tmp_path)
    else:
        fsync_folder(tmp_path)
