"""JSON files: one error for whatever is wrong with them, and never half of one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from kit.files.json_files import object_or_none, read_object, write_json


def test_an_object_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": [1, "naïve 🦙"]})
    assert read_object(tmp_path / "a.json") == object_or_none(tmp_path / "a.json") == {"a": [1, "naïve 🦙"]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, r"is not JSON \(nested"),
        (b'{"a":' * 300 + b"0" + b"}" * 300, r"is not JSON \(nested"),
        (b"[1]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
    ],
)
def test_whatever_is_no_object_is_one_kind_of_error(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{words}"):
        read_object(path)
    assert object_or_none(path) is None


def test_what_is_as_deep_as_a_file_may_be_is_written_again(tmp_path: Path) -> None:
    """Parsing bears more levels than all that is done with the content afterwards, which ended in a RecursionError."""
    content: dict[str, object] = {}
    for _ in range(99):
        content = {"a": content}
    write_json(tmp_path / "a.json", content)
    assert read_object(tmp_path / "a.json") == content
    write_json(tmp_path / "a.json", {"a": content})
    assert object_or_none(tmp_path / "a.json") is None


def test_what_is_not_there_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "nowhere.json")
    assert object_or_none(tmp_path / "nowhere.json") is None


def test_what_is_not_a_number_is_null_and_the_file_is_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"loss": float("nan"), "more": [float("inf"), {"deep": -float("inf")}, 1.5]})
    assert read_object(tmp_path / "a.json") == {"loss": None, "more": [None, {"deep": None}, 1.5]}


def test_a_reader_never_meets_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"n": 0})
    done = threading.Event()

    def write() -> None:
        for number in range(60):
            write_json(path, {"n": number, "filling": "x" * 50_000})
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while not done.is_set():
        assert "n" in read_object(path)
        seen += 1
    writer.join()
    assert seen
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"state": "started"})

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"state": "finished"})
    assert read_object(path) == {"state": "started"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_paths_and_names_of_any_bytes_are_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    name = os.fsdecode(b"rows-\xff.jsonl")
    write_json(path, {"path": Path("data"), "argv": [name, "naïve 🦙"]})
    assert read_object(path) == {"path": "data", "argv": [name, "naïve 🦙"]}


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "a.json").symlink_to(precious)
    (tmp_path / f".a.json.{os.getpid()}").symlink_to(precious)
    write_json(tmp_path / "a.json", {"a": 1})
    assert precious.read_text() == "mine"
    assert read_object(tmp_path / "a.json") == {"a": 1}
