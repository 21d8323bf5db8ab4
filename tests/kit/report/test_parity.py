"""The report's line on parity: what was found with the run's own machine and versions, or how to find out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit.parity.contract import CASES
from kit.parity.results import CaseResult, Result, read_reference
from kit.report.contents import gather
from kit.report.page import render_page
from kit.report.parity import parity_line
from kit.run_directory.history import read_run
from written_run import write_run

CONTRACT, EXACT = read_reference()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the results of this machine are not the test's


def measured(outputs: Path, *, file: str = "parity-current-cpu.json", **where: Any) -> None:
    cases = tuple(CaseResult(case.name, EXACT[case.mathematics], attention="sdpa") for case in CASES)
    facts = {
        "measured_at": "2026-11-23T18:00:00+00:00",
        "platform": "cpu",
        "device": "Some CPU",
        "stack": "current",
        "versions": {"torch": "2.10.0", "peft": "0.21.2", "wandb": "9"},
        **where,
    }
    outputs.mkdir(exist_ok=True)
    (outputs / file).write_text(json.dumps(Result(CONTRACT, facts, cases).as_json()), encoding="utf-8")


def test_where_nothing_was_measured_it_says_how(tmp_path: Path) -> None:
    run, older = (write_run(tmp_path / "runs" / name, stack=name) for name in ("current", "reference"))
    assert parity_line(read_run(run)).startswith("not run: make parity shows")
    assert parity_line(read_run(older)).startswith("not run: make parity STACK=reference shows")


def test_what_was_measured_beside_the_run_is_shown(tmp_path: Path) -> None:
    measured(tmp_path)
    said = parity_line(read_run(write_run(tmp_path / "run")))
    assert said.startswith("Some CPU (cpu), current stack agrees with the formulas: within 0 in float32")
    assert said.endswith("(2026-11-23)")


def test_a_run_elsewhere_finds_it_in_outputs(tmp_path: Path) -> None:
    measured(tmp_path / "outputs")
    assert "agrees" in parity_line(read_run(write_run(tmp_path / "far" / "away" / "run")))


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"versions": {"torch": "2.9.0"}}, "(torch was 2.9.0)"),
        ({"device": "Another CPU"}, "(the device was Another CPU)"),
    ],
)
def test_another_version_or_device_does_not_count(tmp_path: Path, where: dict[str, Any], said: str) -> None:
    measured(tmp_path, **where)
    line = parity_line(read_run(write_run(tmp_path / "run")))
    assert line.startswith("not run in this run's environment")
    assert said in line


def test_another_contract_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "parity-current-cpu.json"
    measured(tmp_path)
    path.write_text(path.read_text().replace(CONTRACT["batch_sha256"], "0" * 64))
    assert parity_line(read_run(write_run(tmp_path / "run"))).startswith("not run with this revision of the kit")


def test_a_gpu_is_known_by_its_name(tmp_path: Path) -> None:
    measured(tmp_path, file="parity-current-h100.json", platform="h100", device="NVIDIA H100")
    machine = {"nvidia": {"gpus": [{"name": "NVIDIA T4"}, {"name": "NVIDIA H100"}], "visible": [1]}}
    assert "agrees" in parity_line(read_run(write_run(tmp_path / "run", platform="h100", machine=machine)))


def test_a_file_that_is_torn_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "parity-current-cpu.json").write_text("{")
    assert parity_line(read_run(write_run(tmp_path / "run"))).startswith("not run: make parity")


def test_the_page_carries_it(tmp_path: Path) -> None:
    measured(tmp_path)
    page = render_page(gather(write_run(tmp_path / "run")), {})
    assert "<dt>parity</dt><dd>Some CPU (cpu), current stack agrees with the formulas" in page
