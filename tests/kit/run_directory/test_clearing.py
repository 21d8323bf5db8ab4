"""A new run leaves nothing behind of the one whose place it takes, and removes nothing that the kit did not write."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kit.run_directory import checkpoints, names
from kit.run_directory.clearing import clear
from kit.train import training
from kit.train.resume import StartPoint

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def _write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}", encoding="utf-8")


def _checkpoint(folder: Path, step: int) -> Path:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    return checkpoints.write(folder / "checkpoints", step, lambda aside: _write(aside, "state.json", "more"), {}).folder


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())


def test_everything_that_is_written_about_a_run_goes_with_it(tmp_path: Path) -> None:
    _checkpoint(tmp_path, 5)
    own = [
        "run.json",
        "metrics.jsonl",
        "stalled.txt",
        "report.html",
        "report.png",
        "demo.json",
        "evaluation.json",
        "error.txt",
        "log.txt",
    ]
    own += [".run.json.123", ".report.html.9", ".evaluation-val.json.7", ".metrics.jsonl.partial"]
    own += [
        ".adapter.partial/x",
        ".merged.partial/x",
        "checkpoints/.checkpoint-6.partial/x",
        "checkpoints/checkpoint-7/state.json",
    ]
    own += [f"adapter/{name}" for name in names.ADAPTER_FILES]
    own += [
        "wandb/sender.log",
        "wandb/debug-internal.log",
        "wandb/handed_on.json",
        "wandb/offline-run-20240501_142926-abcd1234/files/a",
    ]
    own += [".adapter.replaced/README.md", ".merged.replaced/config.json"]
    own += ["merged/merge.json", "merged/config.json", "merged/model-1.safetensors"]
    _write(tmp_path, *own, "reproduction.json", "config.yaml")
    (tmp_path / "evaluation-val.json").write_text('{"evaluated_at": ""}', encoding="utf-8")
    index = {"weight_map": {"a": "model-1.safetensors"}}
    (tmp_path / "merged" / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert clear(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_is_removed_and_all_of_it_is_named(tmp_path: Path) -> None:
    _write(tmp_path, "run.json", "notes.txt", "deeper/run.json", "report.html/x", "evaluation-mine.json", "config.yaml")
    _write(tmp_path, "adapter/adapter_config.json", "adapter/notes.md", "merged/mine.gguf", "wandb/mine.csv")
    _write(tmp_path, "elsewhere/README.md", "checkpoints/checkpoint-500/rng_state.pth")
    (_checkpoint(tmp_path, 5) / "notes.txt").touch()
    (tmp_path / "adapter" / "README.md").symlink_to("../elsewhere/README.md")
    (tmp_path / "checkpoints" / "checkpoint-9").symlink_to("../elsewhere")
    stays = [str(path.relative_to(tmp_path)) for path in clear(tmp_path)]
    assert stays == [
        *("adapter/notes.md", "checkpoints/checkpoint-5", "checkpoints/checkpoint-500", "checkpoints/checkpoint-9"),
        *("config.yaml", "deeper", "elsewhere", "evaluation-mine.json", "merged/mine.gguf", "notes.txt", "report.html"),
        "wandb/mine.csv",
    ]
    assert _files(tmp_path) == [
        *("adapter/notes.md", "checkpoints/checkpoint-5/notes.txt", "checkpoints/checkpoint-500/rng_state.pth"),
        *("checkpoints/checkpoint-9", "config.yaml", "deeper/run.json", "elsewhere/README.md", "evaluation-mine.json"),
        *("merged/mine.gguf", "notes.txt", "report.html/x", "wandb/mine.csv"),
    ]


def test_a_merged_model_is_known_by_its_stamp(tmp_path: Path) -> None:
    _write(tmp_path, "merged/config.json", "merged/model.safetensors")
    assert len(clear(tmp_path)) == 2


def test_a_rerun_keeps_what_says_whose_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(tmp_path, "run.json", "reproduction.json", "config.yaml", "notes.txt")
    training._prepare_folder(tmp_path, StartPoint(), is_rerun=True)
    assert _files(tmp_path) == ["config.yaml", "notes.txt", "reproduction.json"]
    assert capsys.readouterr().err == f"{tmp_path}: keeps files the kit did not write: notes.txt\n"
