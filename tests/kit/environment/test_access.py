"""Model folders, the Hub's cache and wandb's login are found by their libraries' own rules, and no secret is kept."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from kit.environment import access_probe
from kit.environment.facts import WandbAccess

MARKER = "hf_this-is-a-secret"


def complete_folder(folder: Path, *, shards: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    if not shards:
        (folder / "model.safetensors").touch()
        return folder
    names = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    index = {"weight_map": {f"layer.{number}": name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("shards", [0, 3])
def test_a_complete_folder_lacks_nothing(tmp_path: Path, shards: int) -> None:
    assert access_probe.missing_files(complete_folder(tmp_path / "model", shards=shards)) == ()


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = complete_folder(tmp_path / "model", shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert access_probe.missing_files(folder) == ("model-00002-of-00002.safetensors",)


def test_weights_as_pickles_only_do_not_count(tmp_path: Path) -> None:
    folder = complete_folder(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert access_probe.missing_files(folder) == ("model.safetensors",)


def test_an_unreadable_index_is_named(tmp_path: Path) -> None:
    folder = complete_folder(tmp_path / "model", shards=2)
    (folder / "model.safetensors.index.json").write_text("[]", encoding="utf-8")
    assert access_probe.missing_files(folder) == ("a readable model.safetensors.index.json",)


def test_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    found = access_probe.probe_model(str(tmp_path / "nowhere"))
    assert found.kind == "folder"
    assert found.missing_files == ("everything: no such folder",)


def test_a_cached_model_is_found_where_the_cache_was_moved_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "moved"))
    monkeypatch.setenv("HF_TOKEN", MARKER)
    repository = tmp_path / "moved" / "models--owner--small"
    complete_folder(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    found = access_probe.probe_model("owner/small")
    assert (found.is_cached, found.missing_files, found.hub_answer) == (True, (), "not_asked")
    assert found.has_token
    assert MARKER not in str(asdict(found))


def test_offline_the_hub_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(access_probe, "ask_hub", lambda *_: pytest.fail("the Hub was asked"))
    found = access_probe.probe_model("owner/small")
    assert (found.is_offline, found.is_cached, found.hub_answer) == (True, False, "not_asked")


def test_a_model_not_here_is_asked_for_at_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(access_probe, "ask_hub", lambda *_: "gated")
    assert access_probe.probe_model("owner/small").hub_answer == "gated"
    assert access_probe.probe_model("owner/small", ask=False).hub_answer == "not_asked"


@pytest.mark.parametrize(
    ("problem", "answer"),
    [
        (None, "ok"),
        ("GatedRepoError", "gated"),
        ("RepositoryNotFoundError", "not_found"),
        ("EntryNotFoundError", "not_found"),
        ("OfflineModeIsEnabled", "unreachable"),
    ],
)
def test_what_the_hub_says_is_one_word(monkeypatch: pytest.MonkeyPatch, problem: str | None, answer: str) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    errors = pytest.importorskip("huggingface_hub.errors")

    def metadata(*_: object, **__: object) -> None:
        if problem is not None:
            kind = getattr(errors, problem)
            raise kind.__new__(kind)  # their constructors need a response, and differ between releases

    monkeypatch.setattr(hub, "get_hf_file_metadata", metadata)
    assert access_probe.ask_hub("owner/small", None) == answer


@pytest.mark.parametrize(
    ("environ", "cache"),
    [
        ({"HF_HUB_CACHE": "/a/hub", "HF_HOME": "/b"}, "/a/hub"),
        ({"HUGGINGFACE_HUB_CACHE": "/a/hub"}, "/a/hub"),
        ({"HF_HOME": "/b"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
    ],
)
def test_the_cache_is_where_huggingface_hub_puts_it(environ: dict[str, str], cache: str) -> None:
    assert access_probe.hub_cache(environ) == Path(cache)


def test_a_token_is_found_in_the_environment_or_its_file(tmp_path: Path) -> None:
    assert not access_probe.has_hub_token({"HF_HOME": str(tmp_path)})
    assert access_probe.has_hub_token({"HF_HOME": str(tmp_path), "HF_TOKEN": MARKER})
    (tmp_path / "token").write_text(MARKER, encoding="utf-8")
    assert access_probe.has_hub_token({"HF_HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("netrc", "environ", "expected"),
    [
        ("", {}, WandbAccess("none", "")),
        ("", {"WANDB_API_KEY": MARKER}, WandbAccess("environment", "")),
        (f"machine api.wandb.ai login user password {MARKER}\n", {}, WandbAccess("netrc", "")),
        (f"machine other.example login user password {MARKER}\n", {}, WandbAccess("none", "")),
        ("this is no netrc", {}, WandbAccess("none", "")),
        ("", {"WANDB_MODE": "Offline"}, WandbAccess("none", "offline")),
        ("", {"WANDB_DISABLED": "true"}, WandbAccess("none", "disabled")),
    ],
)
def test_a_wandb_login_is_found_where_wandb_looks(
    tmp_path: Path, netrc: str, environ: dict[str, str], expected: WandbAccess
) -> None:
    path = tmp_path / "netrc"
    path.write_text(netrc, encoding="utf-8")
    found = access_probe.probe_wandb({"NETRC": str(path), **environ})
    assert found == expected
    assert MARKER not in str(asdict(found))


def test_a_recorded_path_does_not_name_the_user() -> None:
    assert access_probe.without_home(Path.home() / ".cache" / "hub") == "~/.cache/hub"
    assert access_probe.without_home(Path("/data/hub")) == "/data/hub"
