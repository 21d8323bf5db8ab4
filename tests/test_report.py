"""`make report`: the command, and the page as a browser shows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from browser import browser_missing, look_at
from kit.cli.command import call
from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import report
from kit.report.write import write_report
from written_run import write_run

if TYPE_CHECKING:
    from pathlib import Path


def test_the_verdict_and_the_files_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", evaluations=[])
    assert call(report, [str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("It learned: training loss from 2.88")
    assert "data/sample/val.jsonl was never evaluated" in lines[1]
    assert lines[-2:] == [f"{folder}/report.html", f"{folder}/report.png"]


def test_json_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", loss=lambda _: 0.0)
    assert call(report, [str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["tone"], found["findings"][0]["id"]) == ("bad", "loss.zero")


def test_a_run_that_is_not_there_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(report, [str(tmp_path / "nowhere")]) == 2
    assert "no such run directory" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run")
    folder.chmod(0o500)
    assert call(report, [str(folder)]) == 2
    assert "not allowed (permission denied)" in capsys.readouterr().err


def test_a_path_that_cannot_be_is_named_as_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "report.png").mkdir()
    assert call(report, [str(folder)]) == 2
    said = capsys.readouterr().err
    assert "is a folder where a file is needed" in said
    assert "make room" not in said


def test_neither_training_nor_the_list_of_runs_waits_for_the_drawing_library() -> None:
    imports = "import sys, kit.report; from kit.commands import train, runs, watch, report"
    code = f"{imports}; print('matplotlib' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT / "scripts")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "False\n"


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(bool(browser_missing()), reason=browser_missing())
def test_the_page_is_readable_in_a_browser_at_every_width_and_in_both_schemes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", line={"memory_bytes": 2_000_000_000}, predicted={"seconds": [10.0, 40.0]})
    samples = [{"prompt": "Write amber backwards.", "expected": "rebma", "base": "", "adapter": "rebma"}]
    (folder / "demo.json").write_text(json.dumps({"exact_match_after": 1.0, "samples": samples}))
    seen = look_at(write_report(folder).page)

    assert seen["console"] == []
    assert seen["requests"] == []
    assert {(look["width"], look["scheme"]) for look in seen["looks"]} == {
        (width, scheme) for width in (390, 820, 1440) for scheme in ("light", "dark")
    }
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    loss = next(line["loss"] for line in reversed(lines) if "loss" in line)
    eval_loss = next(line["eval_loss"] for line in reversed(lines) if "eval_loss" in line)
    for look in seen["looks"]:
        assert look["scroll_width"] <= look["width"], look["width"]
        assert look["charts"] == 6  # of the loss's two, the one for this width
        assert look["smallest_text"] > 7.5
        assert look["ids_are_unique"]
        for number in (f"{loss:.3g}", f"{eval_loss:.3g}", f"{lines[-2]['step']:,}", "rebma", "2,000"):
            assert number in look["text"], number
    light, dark = ({look["background"] for look in seen["looks"] if look["scheme"] == s} for s in ("light", "dark"))
    assert len(light) == len(dark) == 1
    assert light != dark
