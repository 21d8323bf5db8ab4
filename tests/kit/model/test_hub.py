"""A hub that hangs or is gone is asked once, and not at all by a run that has begun."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from kit.model import files, hub
from kit.model.base import find_base
from kit.model.hub import hub_answers, hub_left_alone
from kit.model.weights import describe_base

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = "a" * 40


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a cache that holds ``owner/small``, whole."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs the libraries: make setup")
    repository = tmp_path / "models--owner--small"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT, encoding="utf-8")
    (snapshot / "config.json").write_text("{}", encoding="utf-8")
    (snapshot / "tokenizer.json").write_text("{}", encoding="utf-8")
    (snapshot / "model-1.safetensors").write_bytes(b"weights")
    index = '{"weight_map": {"a": "model-1.safetensors"}}'
    (snapshot / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    hub_answers.cache_clear()
    return snapshot


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_hub_that_does_not_answer_is_asked_once_for_a_base_that_is_here(
    cached: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None
) -> None:
    asked: list[str] = []

    def ask(name: str, _revision: str | None) -> str:
        asked.append(name)
        return "unreachable"

    import huggingface_hub

    really = huggingface_hub.hf_hub_download

    def download(*args: Any, **kwargs: Any) -> str:
        assert kwargs["local_files_only"], "the hub was asked"
        return really(*args, cache_dir=cached.parents[2], **kwargs)

    monkeypatch.setattr(hub, "ask_hub", ask)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda _repo, name, **_: str(cached / name) if (cached / name).exists() else None,
    )
    described = describe_base(find_base("owner/small", revision, download=True))
    assert asked == ["owner/small"]
    assert described["revision_resolved"] == COMMIT
    assert set(described["files"]) == {
        "config.json", "tokenizer.json", "model.safetensors.index.json", "model-1.safetensors"
    }  # fmt: skip


def test_a_file_that_is_not_here_is_still_asked_for(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    given: list[bool] = []

    def download(*_args: Any, local_files_only: bool, **_kwargs: Any) -> str:
        given.append(local_files_only)
        return str(cached / "config.json")

    monkeypatch.setattr(hub, "ask_hub", lambda *_: "ok")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_args, **_kwargs: str(cached))
    files.find("owner/small", "config.json", download=True)
    assert given == [False]


def test_a_run_leaves_the_hub_alone_and_puts_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs the libraries: make setup")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
    with hub_left_alone():
        assert constants.HF_HUB_OFFLINE
        assert (os.environ["HF_HUB_OFFLINE"], os.environ["TRANSFORMERS_OFFLINE"]) == ("1", "1")
    assert not constants.HF_HUB_OFFLINE
    assert ("HF_HUB_OFFLINE" in os.environ, os.environ["TRANSFORMERS_OFFLINE"]) == (False, "0")


def test_a_library_that_a_signal_cut_off_may_have_emptied_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with hub_left_alone():
        del os.environ["HF_HUB_OFFLINE"]
    assert "HF_HUB_OFFLINE" not in os.environ
