"""A base's tokenizer is given to the installed library in a form that it reads, and saved in one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("tokenizers", reason="needs the libraries: make setup")

from kit.model import tokenizer_files
from kit.model.files import ModelFileError
from kit.model.tokenizer_files import make_readable, read_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from chat_folders import ChatFolder

TEXT = "<s> [INST] a</s> b"


def _change(path: Path, part: str, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    content[part] |= changes
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_files, "library_version", lambda: "0.15.2")


@pytest.mark.parametrize(("version", "translated"), [("0.15.2", True), ("0.19.1", True), ("0.20.0", False)])
def test_the_installed_library_decides(
    monkeypatch: pytest.MonkeyPatch, chat_folder: ChatFolder, version: str, translated: bool
) -> None:
    path = chat_folder(style="metaspace") / "tokenizer.json"
    own, form = read_tokenizer(path)
    assert form.changes == ()
    monkeypatch.setattr(tokenizer_files, "library_version", lambda: version)
    tokenizer, form = read_tokenizer(path)
    assert bool(form.changes) == translated
    assert tokenizer.encode(TEXT).ids == own.encode(TEXT).ids


@pytest.mark.usefixtures("older")
def test_a_base_that_the_library_would_read_otherwise_is_refused_by_name(chat_folder: ChatFolder) -> None:
    path = chat_folder(style="legacy") / "tokenizer.json"
    _change(path, "model", ignore_merges=True)
    with pytest.raises(ModelFileError, match=r"tokenizer.json: the model BPE has ignore_merges True, .*STACK=current"):
        read_tokenizer(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[" * 20_000])
@pytest.mark.parametrize("version", ["0.15.2", "0.23.0"])
def test_what_is_no_tokenizer_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, version: str
) -> None:
    monkeypatch.setattr(tokenizer_files, "library_version", lambda: version)
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"not a tokenizer .*; download the model again"):
        read_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.usefixtures("older")
def test_a_copy_is_written_in_the_form_that_its_stack_reads(chat_folder: ChatFolder) -> None:
    decoder = {str(number): {"content": token, "normalized": False} for number, token in enumerate(["<unk>", "<s>"])}
    folder = chat_folder(style="metaspace", added_tokens_decoder={**decoder, "999": {"content": "x"}})
    own = tokenizer_files.Tokenizer.from_file(str(folder / "tokenizer.json"))
    make_readable(folder)
    _, form = read_tokenizer(folder / "tokenizer.json")
    assert not [change for change in form.changes if "Metaspace" in change]
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert [token["normalized"] for token in config["added_tokens_decoder"].values()] == [True, True, False]
    again = tokenizer_files.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in (TEXT, "a", " a", ""):
        assert again.encode(text).ids == own.encode(text).ids


def test_a_copy_that_is_read_as_it_stands_is_left_alone(
    chat_folder: ChatFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_readable(tmp_path)  # holds none
    folder = chat_folder(style="metaspace")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    make_readable(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.setattr(tokenizer_files, "library_version", lambda: "0.15.2")
    (folder / "tokenizer_config.json").unlink()
    make_readable(folder)
    assert [path.name for path in folder.iterdir()].count("tokenizer_config.json") == 0
