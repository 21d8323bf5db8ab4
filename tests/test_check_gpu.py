"""The detect command: streams, exit codes, recordings, on a bare Python."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.cli.command import call
from kit.commands import detect
from kit.machine import facts as machines
from kit.machine.facts import Gpu, Machine, Nvidia

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "check_gpu.py"
FIXTURES = Path(__file__).parent / "fixtures" / "machines"
FAILING = {
    "h100_driver_too_old",
    "h100_busy",
    "m4_16gb",
    "m4_macos_13",
    "m4_rosetta",
    "intel_mac",
    "nvidia_smi_broken",
    "nvidia_smi_hanging",
}
NAMES = sorted(path.stem for path in FIXTURES.rglob("*.json"))
LINUX = machines.read(FIXTURES / "linux_cpu.json")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No colours from outside, and no probing of the machine that runs the tests."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(detect, "probe", lambda: LINUX)


def run(*arguments: str, python: tuple[str, ...] = (sys.executable,), **environment: str) -> Any:
    return subprocess.run(
        [*python, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **environment},
    )


def recorded(name: str) -> str:
    return str(FIXTURES / f"{name}.json")


def test_every_fixture_is_run() -> None:
    assert len(NAMES) == 17


@pytest.mark.parametrize("name", NAMES)
def test_exit_code_says_whether_something_must_be_mended(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(detect, ["--from", recorded(name)]) == (1 if name in FAILING else 0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", NAMES)
def test_last_lines_are_the_verdict(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    call(detect, ["--from", recorded(name)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-5:]] == ["platform", "why", "config", "time", "next"]


@pytest.mark.parametrize("name", NAMES)
def test_json_is_one_object_that_agrees_with_the_exit_code(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = call(detect, ["--json", "--from", recorded(name)])
    body = json.loads(capsys.readouterr().out)
    assert body["schema_version"] == 1
    assert body["verdict"] == ("failed" if code else "passed")
    assert body["platform"] in ("h100", "cuda", "m4", "cpu")
    assert set(body) >= {"reason", "recommended_config", "expected_time", "next_command", "machine", "findings"}


def test_json_keeps_talk_off_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(detect, ["--json", "--record", str(tmp_path / "machine.json")])
    output = capsys.readouterr()
    assert json.loads(output.out)["platform"] == "cpu"
    assert "facts written to" in output.err


def test_facts_show_what_the_driver_said(capsys: pytest.CaptureFixture[str]) -> None:
    call(detect, ["--from", recorded("h100_80gb")])
    output = capsys.readouterr().out
    assert "driver  550.127.08, CUDA up to 12.4" in output
    assert "gpu 0   NVIDIA H100 80GB HBM3, 85.5 GB" in output


def test_recording_replays_to_the_same_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "machine.json"
    assert call(detect, ["--json", "--record", str(path)]) == 0
    live = json.loads(capsys.readouterr().out)
    assert call(detect, ["--json", "--from", str(path)]) == 0
    assert json.loads(capsys.readouterr().out) == live


def test_recording_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    path.write_text("old", encoding="utf-8")
    call(detect, ["--record", str(path)])
    assert list(tmp_path.iterdir()) == [path]
    assert machines.read(path) == LINUX


def test_recording_into_nowhere_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(detect, ["--record", str(tmp_path / "absent" / "machine.json")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_recording_over_a_folder_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    assert call(detect, ["--record", str(target)]) == 2
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"schema_version": 1, "machine": {}}',
        b'{"schema_version": 1, "machine": {"system": 3}}',
        b'{"schema_version": 1, "machine": {"system": "\\ud800"}}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
    ],
    ids=["empty", "cut", "list", "null", "object", "no_facts", "wrong_kind", "unprintable", "not_utf8", "deep"],
)
def test_malformed_recording_is_one_sentence_and_a_fix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "machine.json"
    path.write_bytes(content)
    assert call(detect, ["--from", str(path)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: {path}: ")
    assert "fix: record the machine again" in output.err


def test_absent_recording_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(detect, ["--from", str(tmp_path / "absent.json")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_unknown_option_is_wrong_use() -> None:
    with pytest.raises(SystemExit) as raised:
        call(detect, ["--gpu"])
    assert raised.value.code == 2


def test_torch_cannot_be_asked_about_a_recording(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(detect, ["--torch", "--from", recorded("m4_32gb")]) == 2
    assert "--torch" in capsys.readouterr().err


def test_colour_is_off_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    call(detect, ["--from", recorded("h100_busy")])
    assert "\033[" not in capsys.readouterr().out


def test_force_color_turns_colour_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    call(detect, ["--from", recorded("h100_busy")])
    assert "\033[" in capsys.readouterr().out


def test_no_color_wins_over_force_color(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    call(detect, ["--from", recorded("h100_busy")])
    assert "\033[" not in capsys.readouterr().out


def test_json_is_never_coloured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    call(detect, ["--json", "--from", recorded("h100_busy")])
    assert "\033[" not in capsys.readouterr().out


def test_bare_python_detects_this_machine() -> None:
    result = run("--json", python=(sys.executable, "-S", "-E"))
    assert result.stderr == ""
    assert json.loads(result.stdout)["platform"] in ("h100", "cuda", "m4", "cpu")


def test_detection_imports_no_torch() -> None:
    code = (
        "import runpy, sys\nsys.argv = ['check_gpu.py', '--json']\n"
        f"try:\n    runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'bitsandbytes'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parent)},
    )
    assert result.stderr.strip() == "[]"


@pytest.mark.parametrize(
    "path",
    [SCRIPT, *sorted((ROOT / "scripts" / "kit" / "machine").glob("*.py"))],
    ids=lambda path: path.name,
)
def test_detection_is_written_for_python_3_9(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))


def test_functions_judge_recorded_facts() -> None:
    machine = machines.read(FIXTURES / "h100_busy.json")
    assert detect.detect_platform(machine).platform == "h100"
    assert "gpu.busy" in {finding.id for finding in detect.check_gpu(machine)}


def test_functions_judge_this_machine_without_facts() -> None:
    assert detect.detect_platform().platform == "cpu"


def mps(monkeypatch: pytest.MonkeyPatch, *, available: bool) -> None:
    torch = SimpleNamespace(backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: available)))
    monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
    monkeypatch.setattr(detect.platform, "system", lambda: "Darwin")


def test_mps_is_not_asked_for_off_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect.platform, "system", lambda: "Linux")
    monkeypatch.setitem(sys.modules, "torch", None)
    (finding,) = detect.check_mps_backend()
    assert (finding.severity, "Linux" in finding.message) == ("skipped", True)


@pytest.mark.parametrize(("available", "severity"), [(True, "ok"), (False, "error")])
def test_mps_is_torchs_own_answer(monkeypatch: pytest.MonkeyPatch, *, available: bool, severity: str) -> None:
    mps(monkeypatch, available=available)
    assert [finding.severity for finding in detect.check_mps_backend()] == [severity]


def test_mps_without_torch_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    mps(monkeypatch, available=True)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert [finding.severity for finding in detect.check_mps_backend()] == ["skipped"]


def test_recorded_answer_of_torch_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    machine = replace(machines.read(FIXTURES / "m4_32gb.json"), mps_available=True)
    assert [finding.severity for finding in detect.check_mps_backend(machine)] == ["ok"]


def test_torch_option_turns_a_mac_without_mps_into_a_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mps(monkeypatch, available=False)
    monkeypatch.setattr(detect, "probe", lambda: machines.read(FIXTURES / "m4_32gb.json"))
    assert call(detect, ["--torch", "--json"]) == 1
    body = json.loads(capsys.readouterr().out)
    assert (body["platform"], body["next_command"]) == ("cpu", "make detect")
    assert body["machine"]["mps_available"] is False


def cuda_machine() -> Machine:
    return replace(LINUX, nvidia=Nvidia((Gpu(0, "NVIDIA H100", 85 * 10**9),), "550.127.08", (12, 4), "nvml"))


@pytest.mark.parametrize(("built", "words"), [(None, "a build without CUDA"), ("13.0", "built for CUDA 13.0")])
def test_torch_that_cannot_use_the_gpu_says_what_it_is_built_for(
    monkeypatch: pytest.MonkeyPatch, built: str | None, words: str
) -> None:
    torch = SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: False), version=SimpleNamespace(cuda=built), __version__="2.10.0"
    )
    monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
    (finding,) = detect.check_cuda_backend(cuda_machine())
    assert finding.severity == "error"
    assert words in finding.message


def test_crashing_torch_is_a_finding(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())  # type: ignore[arg-type]
    monkeypatch.setattr(detect, "probe", cuda_machine)
    assert call(detect, ["--torch"]) == 1
    assert "torch.cuda" in capsys.readouterr().out
