"""What is read is a file: no reader of the kit waits for a pipe's writer or reads a device to its end."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from kit.config.error import ConfigError
from kit.config.file import read_text as read_config
from kit.data.conversations import read_conversations
from kit.files import regular_files
from kit.files.digest import file_sha256
from kit.files.json_files import object_or_none
from kit.files.regular_files import NotRegularError, open_regular, read_regular, read_text
from kit.model.files import ModelFileError, read_json
from kit.model.files import read_text as read_model_text
from kit.model.safetensors_header import read_header
from kit.model.tokenizer_files import read_tokenizer
from kit.run_directory import checkpoints
from kit.run_directory.checkpoints import DamagedCheckpointError
from kit.run_directory.history import RunError, read_receipt
from kit.run_directory.metrics_tail import MetricsTail
from kit.runs.verify import verify_receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _within_seconds() -> Iterator[None]:
    def late(*_: Any) -> None:
        pytest.fail("waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["pipe", "device"])
def endless(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    if request.param == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    return path


READERS: list[Callable[[Path], object]] = [
    open_regular,
    read_config,
    lambda path: list(read_conversations(path)),
    file_sha256,
    read_json,
    read_model_text,
    read_header,
    read_tokenizer,
    lambda path: read_receipt(path.parent),
    lambda path: verify_receipt(path.parent),
]


@pytest.mark.parametrize("read", READERS)
def test_no_reader_waits(endless: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises((OSError, ConfigError, ModelFileError, RunError), match="is a pipe, a socket or a device"):
        read(endless)


def test_what_is_optional_is_not_there(endless: Path) -> None:
    assert object_or_none(endless) is None
    assert MetricsTail(endless).read() == ([], False)


@pytest.mark.parametrize("name", [checkpoints.MANIFEST, "state.json"])
def test_a_pipe_in_a_checkpoint_is_damage(tmp_path: Path, name: str) -> None:
    folder = checkpoints.write(tmp_path, 5, lambda aside: (aside / "state.json").touch(), {}).folder
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(DamagedCheckpointError, match="is a pipe, a socket or a device"):
        checkpoints.read(folder)


def test_a_path_that_changes_between_the_look_and_the_opening(endless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "stat", lambda _: SimpleNamespace(st_mode=stat.S_IFREG))
    with pytest.raises(NotRegularError):
        open_regular(endless)


def test_files_and_links_to_files_are_read_and_folders_are_not(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one\r\ntwo\n")
    (tmp_path / "link").symlink_to("a")
    assert read_text(tmp_path / "link") == (tmp_path / "a").read_text(encoding="utf-8")
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)


def test_what_is_held_whole_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a": "b" * 100}), encoding="utf-8")
    with pytest.raises(OSError, match="it exceeds 0 MB"):
        read_regular(tmp_path / "a.json", most=50)


@pytest.mark.parametrize("read", [lambda file: file.read(), lambda file: file.readline()], ids=["whole", "a line"])
def test_a_file_that_gives_nothing_and_does_not_end_is_refused(read: Callable[[Any], object]) -> None:
    there, _end = os.pipe()
    os.set_blocking(there, False)  # as /proc/kmsg is, which looks like a file
    with pytest.raises(NotRegularError, match="yields no data and no end of file"):
        read(io.BufferedReader(regular_files._File(there, Path("kmsg"))))
