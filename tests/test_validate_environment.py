"""The command: its exit codes, its last line, its JSON, and what it never does (import torch, show a secret)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kit.cli.command import call
from kit.commands import validate_environment
from kit.environment import facts
from validate_environment import (
    check_imports_h100,
    check_imports_m4,
    check_mistral_compatibility,
    check_training_dependencies,
    environment_findings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.cli.findings import Finding
    from kit.environment.facts import Environment

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "tests" / "fixtures" / "environments"
SCRIPT = ROOT / "scripts" / "validate_environment.py"
MARKER = "this-is-a-secret"


def fixture(name: str) -> str:
    return str(FIXTURES / f"{name}.json")


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environ},
    )


def test_a_good_environment_passes_and_the_last_line_is_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(validate_environment, ["--from", fixture("h100_reference_good"), "--require", "h100"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("this environment can train: ")
    assert last.endswith("next: make validate CONFIG=configs/training_config_h100.yaml")


def test_a_broken_environment_fails_and_the_last_line_names_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(validate_environment, ["--from", fixture("h100_missing_torch")]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("this environment cannot train yet: ")
    assert last.endswith("next: make setup")


def test_warnings_alone_pass() -> None:
    assert call(validate_environment, ["--from", fixture("h100_without_flash_attention")]) == 0


@pytest.mark.parametrize(
    ("record", "required", "code"),
    [
        ("h100_reference_good", "h100", 0),
        ("h100_reference_good", "cuda", 0),
        ("h100_reference_good", "m4", 1),
        ("m4_good", "m4", 0),
        ("m4_good", "h100", 1),
        ("m4_good", "cpu", 0),
    ],
)
def test_require_gates_on_the_kind_of_machine(record: str, required: str, code: int) -> None:
    assert call(validate_environment, ["--from", fixture(record), "--require", required]) == code


def test_a_required_gpu_that_is_missing_is_told_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    call(validate_environment, ["--from", fixture("m4_good"), "--require", "h100", "--json"])
    found = json.loads(capsys.readouterr().out)["findings"]
    errors = {finding["id"] for finding in found if finding["severity"] == "error"}
    assert {"environment.platform", "environment.gpu", "environment.torch_without_cuda"} <= errors


def test_json_is_one_object_with_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(validate_environment, ["--from", fixture("m4_torch_2_10"), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["schema_version"], data["verdict"], data["platform"], data["stack"]) == (1, "failed", "m4", "current")


@pytest.mark.parametrize(
    "arguments", [("--from", "nowhere.json"), ("--from", str(SCRIPT)), ("--config", "nowhere.yaml")]
)
def test_a_file_that_cannot_be_read_is_a_wrong_use(arguments: tuple[str, ...]) -> None:
    assert call(validate_environment, list(arguments)) == 2


def test_a_record_that_cannot_be_written_is_a_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        call(validate_environment, ["--from", fixture("m4_good"), "--record", str(tmp_path / "no" / "such" / "folder")])
        == 2
    )
    assert "name a writable file" in capsys.readouterr().err


def test_what_is_recorded_can_be_replayed(tmp_path: Path) -> None:
    record = tmp_path / "facts.json"
    call(validate_environment, ["--from", fixture("m4_good"), "--record", str(record)])
    assert facts.read(record) == facts.read(Path(fixture("m4_good")))


def test_a_configuration_decides_which_questions_matter(capsys: pytest.CaptureFixture[str]) -> None:
    config = str(ROOT / "configs" / "training_config_demo.yaml")
    call(validate_environment, ["--from", fixture("m4_good"), "--config", config, "--json"])
    found = {finding["id"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert found["environment.wandb"]["message"] == "not used: training.report_to is none"


@pytest.mark.parametrize(
    ("check", "identity"),
    [
        (check_imports_h100, "environment.bitsandbytes_library"),
        (check_mistral_compatibility, "environment.transformers_version"),
        (check_training_dependencies, "environment.peft_version"),
        (environment_findings, "environment.device_works"),
    ],
)
def test_the_checks_people_rely_on_take_facts(check: Callable[[Environment], list[Finding]], identity: str) -> None:
    assert identity in {finding.id for finding in check(facts.read(Path(fixture("h100_reference_good"))))}


def test_the_check_for_apple_silicon_takes_facts() -> None:
    found = check_imports_m4(facts.read(Path(fixture("m4_good"))))
    assert {finding.severity for finding in found} == {"ok"}


def test_without_facts_a_check_probes_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate_environment, "probe", lambda: facts.read(Path(fixture("m4_good"))))
    assert "environment.mps" in {finding.id for finding in check_imports_m4()}


def test_the_parent_never_imports_torch() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); "
        "from kit.cli.command import call; from kit.commands import validate_environment; "
        "call(validate_environment, ['--no-probe']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'bitsandbytes')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_no_secret_is_shown_or_recorded(tmp_path: Path) -> None:
    record = tmp_path / "facts.json"
    done = run("--no-probe", "--json", "--record", str(record), HF_TOKEN=MARKER, WANDB_API_KEY=MARKER)
    assert json.loads(record.read_text(encoding="utf-8"))["environment"]["model"]["has_token"] is True
    assert MARKER not in done.stdout + done.stderr + record.read_text(encoding="utf-8")


@pytest.mark.slow
def test_an_interrupt_ends_with_130() -> None:
    pytest.importorskip("torch", reason="torch is not installed: the child would be done before the interrupt")
    command = subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert command.stderr is not None
    for line in command.stderr:
        if "import torch" in line:
            command.send_signal(signal.SIGINT)
            break
    assert "Traceback" not in command.communicate()[1]
    assert command.returncode == 130


@pytest.mark.slow
def test_the_whole_command_works_this_machine_and_shows_no_secret(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    record = tmp_path / "facts.json"
    done = run("--json", "--record", str(record), HF_TOKEN=MARKER, WANDB_API_KEY=MARKER)
    assert "train step …" in done.stderr
    assert "environment.device_works" in {finding["id"] for finding in json.loads(done.stdout)["findings"]}
    assert MARKER not in done.stdout + done.stderr + record.read_text(encoding="utf-8")
