from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kit.cli.command import call
from kit.cli.findings import has_errors
from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import demo

if TYPE_CHECKING:
    from pathlib import Path


def test_a_base_made_by_this_code_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    monkeypatch.setattr(demo, "pretrain_base", lambda folder: made.append(folder) or 0.5)
    demo.make_base(tmp_path)
    demo.make_base(tmp_path)
    assert made == [tmp_path]


def test_a_model_made_elsewhere_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "pretrain_base", lambda _folder: pytest.fail("the model was overwritten"))
    (tmp_path / "config.json").touch()
    assert call(demo, [f"model.model_name_or_path={tmp_path}"]) == 2


def test_a_base_made_by_other_code_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    monkeypatch.setattr(demo, "pretrain_base", lambda folder: made.append(folder) or 0.5)
    (tmp_path / "made_by.json").write_text(json.dumps({"recipe": "older"}), encoding="utf-8")
    demo.make_base(tmp_path)
    assert made == [tmp_path]


def test_a_wrong_override_is_refused_before_anything_is_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "make_base", lambda _folder: pytest.fail("the base was made"))
    assert call(demo, ["training.max_stepz=3"]) == 1
    assert "training.max_steps" in capsys.readouterr().err


def test_ctrl_c_while_the_base_is_made_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "make_base", interrupted)
    assert call(demo, []) == 130


@pytest.mark.parametrize(("code", "is_told"), [(130, True), (1, False)])
def test_a_stopped_training_is_gone_on_with_by_make_train(
    code: int, is_told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "make_base", lambda _folder: None)
    monkeypatch.setattr(demo.train, "run", lambda _options: code)
    assert call(demo, []) == code
    told = "make train CONFIG=configs/training_config_demo.yaml RESUME=auto" in capsys.readouterr().err
    assert told == is_told


@pytest.mark.slow
def test_a_base_that_learnt_nothing_fails_the_demo(tiny_base: Path, tmp_path: Path) -> None:
    """The demo's verdict is a check: without fine-tuning that works, it says so and exits 1."""
    from kit.commands import train
    from kit.config.resolve import resolve
    from small_run import CONFIG, overrides

    changes = overrides(tiny_base, tmp_path / "out", training__max_steps=1)
    assert call(train, [str(CONFIG), *changes]) == 0
    assert demo.compare(resolve(CONFIG, changes).settings) == 1
    scores = json.loads((tmp_path / "out/demo.json").read_text(encoding="utf-8"))
    samples = scores.pop("samples")
    assert scores == {"exact_match_before": 0.0, "exact_match_after": 0.0, "questions": 100}
    assert len(samples) == 100
    assert samples[0].keys() == {"prompt", "expected", "base", "adapter"}
    assert samples[0]["prompt"] in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_the_sample_data_fits_the_demo(tiny_base: Path) -> None:
    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.dataset import load_file

    loaded = load_file(PROJECT_ROOT / "data/sample/train.jsonl", ChatTokenizer.load(str(tiny_base)), 64)
    assert len(loaded.rows) == 4000
    assert not has_errors(loaded.findings)
    assert {finding.id for finding in loaded.findings} == {"data.rows"}
