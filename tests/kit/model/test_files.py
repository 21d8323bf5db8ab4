"""A model's files are found in a folder, in the cache or on the hub, or their absence is said in a sentence."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects

from kit.model import base
from kit.model.files import ModelFileError, download_command, find, is_local, read_json, read_text


@pytest.mark.parametrize("name", ["./a", "../a", "/a/b", "~/a", "a/b/c", "models/demo-base", "outputs/run"])
def test_a_path_is_known_by_its_form(name: str) -> None:
    assert is_local(name)


@pytest.mark.parametrize("name", ["gpt2", "mistralai/Mistral-7B-v0.1", "x" * 5000, "a/" + "x" * 5000])
def test_a_hub_name_is_known_by_its_form(name: str) -> None:
    assert not is_local(name)


def test_a_folder_here_is_local_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert is_local("owner/name")


def test_a_file_in_a_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert find(str(tmp_path), "config.json") == tmp_path / "config.json"
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert find(f"~/{tmp_path.name}", "config.json") == tmp_path / "config.json"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{tmp}", "the folder has no config.json; copy the model's complete folder there"),
        ("{tmp}/none", "there is no such folder; give a model's folder or its name on the hub"),
        ("{tmp}/file", "there is no such folder"),
        ("{tmp}/" + "x" * 5000, "there is no such folder"),
        ("~nobody-of-this-name/model", "there is no such user; write the whole path"),
        ("models/none", "there is no such folder"),
    ],
)
def test_what_is_not_there_is_said_without_asking_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", _unreachable)
    with pytest.raises(ModelFileError, match=message):
        find(name.format(tmp=tmp_path), "config.json", download=True)


def _unreachable(*_args: Any, **_kwargs: Any) -> str:
    raise AssertionError("the hub was asked")


def test_the_hub_is_asked_only_when_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def download(*args: Any, **kwargs: Any) -> str:
        asked.append((*args, kwargs))
        return os.fspath(Path("cache/config.json"))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert find("owner/name", "config.json", "abc", download=True) == Path("cache/config.json")
    assert find("owner/name", "config.json") == Path("cache/config.json")
    assert asked == [
        ("owner/name", "config.json", {"revision": "abc", "local_files_only": False}),
        ("owner/name", "config.json", {"revision": None, "local_files_only": True}),
    ]


class GatedRepoError(Exception):
    pass


@pytest.mark.parametrize(
    ("exc", "download", "advice"),
    [
        (GatedRepoError("no"), True, "accept the model's terms"),
        (OSError("401 Client Error"), True, "accept the model's terms"),
        (OSError("403 Forbidden"), True, "accept the model's terms"),
        (ConnectionError("no route"), True, "check the name and the network"),
        (FileNotFoundError("no"), False, "download it first: `hf download owner/name "),
    ],
)
def test_the_advice_fits_the_reason(
    monkeypatch: pytest.MonkeyPatch, exc: Exception, download: bool, advice: str
) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> str:
        raise exc

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(ModelFileError) as caught:
        find("owner/name", "config.json", download=download)
    found, _, fix = str(caught.value).rpartition("; ")
    assert found == "owner/name: config.json is not on this machine"
    assert fix.startswith(advice)


# As in Mistral's repositories.
_READ = (
    *("config.json", "generation_config.json", "model.safetensors.index.json", "model-00001-of-00003.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "chat_template.jinja"),
    *("model.safetensors", "added_tokens.json"),
)
_BESIDE = (
    *("consolidated.safetensors", "consolidated.00.pth", "pytorch_model-00001-of-00003.bin", "pytorch_model.bin"),
    *("tokenizer.model.v3", "README.md", ".gitattributes", "model.gguf", "tf_model.h5", "training_args.bin"),
)


def test_the_command_fetches_what_the_kit_reads_and_nothing_else() -> None:
    command = shlex.split(download_command("owner/name", "abc"))
    assert (command[:3], command[-2:]) == (["hf", "download", "owner/name"], ["--revision", "abc"])
    patterns = command[3:-2]
    assert set(filter_repo_objects([*_READ, *_BESIDE], allow_patterns=patterns)) == set(_READ)
    # One name alone would be taken for a file's, pattern or not.
    assert len(patterns) > 1
    assert "--revision" not in download_command("owner/name")


def test_the_command_fetches_every_file_that_is_read_by_name() -> None:
    assert {base.CONFIG, base.WHOLE, base.INDEX, *base.OPTIONAL} <= set(_READ)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{\x00", b"\xef\xbb\xbf{}", b"[]", b"3", b"[" * 20_000])
def test_a_broken_file_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="; download the model again"):
        read_json(path)


def test_a_file_that_is_gone_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for read, words in ((read_json, "cannot be read .No such file"), (read_text, "not readable as text")):
        with pytest.raises(ModelFileError, match=words):
            read(tmp_path / "none")


def test_a_good_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"é": 1}', encoding="utf-8")
    assert read_json(path) == {"é": 1}
    assert read_text(path) == '{"é": 1}'
