"""End to end: from a configuration and a machine to a verdict and the next command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kit.cli.command import call
from kit.commands import validate_config
from kit.stacks.stack import stack_of

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
MACHINES = ROOT / "tests" / "fixtures" / "machines"
SAMPLE = [f"data.train_file={ROOT}/data/sample/train.jsonl", f"data.val_file={ROOT}/data/sample/val.jsonl"]


@pytest.fixture(autouse=True)
def _current_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.10.0", "transformers": "5.23.0", "bitsandbytes": "0.50.2", "wandb": "0.22.0"}
    monkeypatch.setattr(validate_config, "installed_stack", lambda: stack_of(versions))


def _json(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = call(validate_config, [*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("machine", "config", "command"),
    [
        ("h100_80gb", "training_config_h100.yaml", "make train-h100"),
        ("m4_32gb", "training_config_m4.yaml", "make train-m4"),
        ("rtx_4090", "training_config.yaml", "make train CONFIG="),
    ],
)
def test_a_machines_own_config_passes_and_names_the_run(
    machine: str, config: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, body = _json([str(CONFIGS / config), *SAMPLE, "--from", str(MACHINES / f"{machine}.json")], capsys)
    assert (code, body["verdict"]) == (0, "passed")
    assert body["next_command"].startswith(command)
    assert 'SET="data.train_file=' in body["next_command"]


@pytest.mark.parametrize(("machine", "config"), [("h100_80gb", "h100"), ("m4_32gb", "m4"), ("linux_cpu", "demo")])
def test_without_a_config_the_recommended_one_is_checked(
    machine: str, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, body = _json(["--from", str(MACHINES / f"{machine}.json"), *SAMPLE], capsys)
    assert body["config"].endswith(f"configs/training_config_{config}.yaml")


def test_overrides_alone_change_the_recommended_config(capsys: pytest.CaptureFixture[str]) -> None:
    code, body = _json(["lora.r=0", "--from", str(MACHINES / "linux_cpu.json")], capsys)
    assert code == 1
    assert [finding["id"] for finding in body["findings"]] == ["config.bad_value"]


def test_the_h100_config_is_refused_on_an_m4_with_the_fix(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(CONFIGS / "training_config_h100.yaml"), *SAMPLE, "--from", str(MACHINES / "m4_32gb.json")]
    assert call(validate_config, arguments) == 1
    out = capsys.readouterr().out
    assert "paged_adamw_32bit, which needs CUDA" in out
    assert "training.optim=adamw_torch" in out
    assert "this configuration cannot run here" in out
    assert out.splitlines()[-1].startswith("next: fix the errors above, then: make validate CONFIG=")


def test_the_verdict_and_the_next_command_come_last(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(CONFIGS / "training_config_m4.yaml"), *SAMPLE, "--from", str(MACHINES / "m4_32gb.json")]
    assert call(validate_config, arguments) == 0
    *_, verdict, following = capsys.readouterr().out.splitlines()
    assert verdict.startswith("this configuration can run here (")
    assert following.startswith("next: make train-m4")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nowhere.yaml"], 2),
        ([str(CONFIGS)], 2),
        ([str(CONFIGS / "training_config.yaml"), "lora.r"], 2),
        ([str(CONFIGS / "training_config.yaml"), "lora.r=0"], 1),
    ],
)
def test_a_refused_config_ends_with_its_exit_code(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found, body = _json([*arguments, "--from", str(MACHINES / "rtx_4090.json")], capsys)
    assert (found, body["verdict"]) == (code, "failed")


def test_a_record_that_cannot_be_read_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "machine.json"
    assert call(validate_config, ["--from", str(record)]) == 2
    record.write_text("[]", encoding="utf-8")
    assert call(validate_config, ["--from", str(record)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("fix:") == 2


def test_this_machine_is_judged_without_torch(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "scripts" / "validate_training_config.py"), "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode in {0, 1}
    assert json.loads(run.stdout)["schema_version"] == 1
    assert " torch\n" not in run.stderr
