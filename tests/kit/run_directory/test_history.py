"""Runs are found by name or path and read back, whatever state their folder is in."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.run_directory.history import NEWEST, RunError, find_run, read_run, run_directories

SETTINGS = resolve(PROJECT_ROOT / "configs/training_config_demo.yaml").settings


def _run(outputs: Path, name: str, *, written: int = 0, **facts: object) -> Path:
    folder = outputs / name
    folder.mkdir(parents=True)
    receipt = {"run_name": name, "state": "finished", "config": SETTINGS.as_mapping(), **facts}
    (folder / "run.json").write_text(json.dumps(receipt), encoding="utf-8")
    os.utime(folder / "run.json", (written, written))
    return folder


def test_a_run_is_found_by_its_name_and_by_its_path(tmp_path: Path) -> None:
    folder = _run(tmp_path, "first")
    assert find_run("first", tmp_path) == folder
    assert find_run(str(folder), tmp_path / "elsewhere") == folder


def test_newest_is_the_run_whose_receipt_was_written_last(tmp_path: Path) -> None:
    _run(tmp_path, "b", written=100)
    newest = _run(tmp_path, "a", written=200)
    assert find_run(NEWEST, tmp_path) == newest
    assert run_directories(tmp_path)[-1] == newest


def test_a_run_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    _run(tmp_path, "first")
    with pytest.raises(RunError, match=r"frist: no such run directory.*\(found: first\)"):
        find_run("frist", tmp_path)


def test_without_any_run_the_newest_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="make demo"):
        find_run(NEWEST, tmp_path)


def test_steps_and_evaluations_are_told_apart_and_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    folder = _run(tmp_path, "first")
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 1, "eval_loss": 1.5}\n{"step": 2, "lo')
    run = read_run(folder)
    assert run.steps == ({"step": 1, "loss": 2.0},)
    assert run.evaluations == ({"step": 1, "eval_loss": 1.5},)


def test_the_settings_are_those_it_ran_with(tmp_path: Path) -> None:
    assert read_run(_run(tmp_path, "first")).settings == SETTINGS


def test_keys_younger_than_the_run_have_their_default_and_keys_that_are_gone_are_passed_over(tmp_path: Path) -> None:
    config = SETTINGS.as_mapping()
    del config["training"]["max_grad_norm"]
    config["training"]["a_key_of_the_past"] = 1
    settings = read_run(_run(tmp_path, "old", config=config)).settings
    assert (
        settings.training.max_grad_norm
        == resolve(PROJECT_ROOT / "configs/training_config.yaml").settings.training.max_grad_norm
    )


@pytest.mark.parametrize("content", ["", "[]", "{", '"text"', "[" * 100_000])
def test_a_receipt_that_is_none_is_an_error_with_its_path(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=r"run\.json: is not a receipt"):
        read_run(tmp_path)


def test_a_run_without_an_adapter_says_its_state(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the run is interrupted and has no adapter"):
        _ = read_run(_run(tmp_path, "first", state="interrupted")).adapter


@pytest.mark.parametrize("name", ["../..", "..", ".", "/", "a/../../b", "", "a\nb", "../" * 40 + "etc"])
def test_a_name_that_leads_out_of_outputs_is_a_run_only_where_a_receipt_is(tmp_path: Path, name: str) -> None:
    outputs = tmp_path / "deep" / "outputs"
    outputs.mkdir(parents=True)
    with pytest.raises(RunError, match="no such run directory"):
        find_run(name, outputs)


@pytest.mark.parametrize(
    "config", [{}, {"model": 5}, {"model": {"model_name_or_path": 5}}, {"lora": {"target_modules": None}}]
)
def test_a_configuration_no_run_could_have_had_is_one_sentence(tmp_path: Path, config: dict[str, object]) -> None:
    with pytest.raises(RunError, match=r"run\.json: .* cannot be .*; restore it, or train it again"):
        _ = read_run(_run(tmp_path, "a", config=config)).settings


def test_a_line_of_metrics_nested_beyond_reading_is_passed_over(tmp_path: Path) -> None:
    folder = _run(tmp_path, "a")
    (folder / "metrics.jsonl").write_text("[" * 100_000 + '\n{"step": 1, "loss": 2.0}\n', encoding="utf-8")
    assert [line["step"] for line in read_run(folder).steps] == [1]
