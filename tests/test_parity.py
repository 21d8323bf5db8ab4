"""`make parity` on this machine and on other machines' files."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kit.cli.command import call
from kit.commands import parity
from kit.parity.contract import CASES
from kit.parity.results import CaseResult, Numbers, Result, read_reference, read_result

if TYPE_CHECKING:
    from pathlib import Path

CONTRACT, EXACT = read_reference()


def write(path: Path, *, factor: float = 1.0, device: str = "Some CPU", **changes: object) -> Path:
    """A machine's file whose losses are off by a factor."""
    cases = []
    for case in CASES:
        exact = EXACT[case.mathematics]
        off = Numbers(tuple(loss * factor for loss in exact.losses), exact.gradient_norms, exact.module_norms)
        cases.append(CaseResult(case.name, off))
    found = Result(CONTRACT, {"device": device, "platform": "cpu", "stack": "current"}, tuple(cases))
    path.write_text(json.dumps(replace(found, **changes).as_json()), encoding="utf-8")  # type: ignore[arg-type]
    return path


def test_a_file_that_agrees_is_said_to_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(parity, ["--from", str(write(tmp_path / "mine.json"))]) == 0
    assert "Some CPU (cpu), current stack agrees with the formulas" in capsys.readouterr().out


def test_a_file_that_does_not_is_a_failed_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(parity, ["--from", str(write(tmp_path / "mine.json", factor=1.01)), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["agrees"], found["verdict"]) == (False, "failed")
    assert "does not agree with the formulas: 1e-02 in float32" in found["sentences"][0]


def test_two_machines_are_compared_with_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, theirs = write(tmp_path / "a.json", factor=1 + 4e-6), write(tmp_path / "b.json", device="Apple M4")
    assert call(parity, ["--from", str(mine), "--against", str(theirs)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "agrees with the other file, Apple M4 (cpu), current stack: within 4e-06 in float32" in last


def test_another_contract_is_no_agreement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = write(tmp_path / "b.json", contract={**CONTRACT, "batch_sha256": "0" * 64})
    assert call(parity, ["--from", str(write(tmp_path / "a.json")), "--against", str(theirs)]) == 1
    assert "the rows are not the other file's" in capsys.readouterr().out


def test_a_file_that_cannot_be_used_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "torn.json").write_text("{")
    for name in ("torn.json", "nowhere.json"):
        assert call(parity, ["--from", str(write(tmp_path / "a.json")), "--against", str(tmp_path / name)]) == 2
        told = capsys.readouterr()
        assert name in told.err
        assert told.out == ""


@pytest.mark.slow
def test_this_machine_agrees_and_leaves_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="needs the libraries: make setup")
    monkeypatch.chdir(tmp_path)
    assert call(parity, ["--cpu"]) == 0, capsys.readouterr()
    assert "agrees with the formulas: within" in capsys.readouterr().out
    (written,) = (tmp_path / "outputs").glob("parity-*-cpu.json")
    found = read_result(written)
    assert found.contract == CONTRACT
    assert found.where["versions"]["torch"]
    assert call(parity, ["--from", str(written), "--against", str(written)]) == 0
