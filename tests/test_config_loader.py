from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from config_loader import load_config, validate_required_fields
from kit.cli.command import call
from kit.commands import config
from kit.config import schema
from kit.config.error import ConfigError
from kit.machine.platforms import judge
from kit.machine.probe import probe
from kit.machine.target import recommended

ROOT = Path(__file__).parents[1]
M4 = ROOT / "configs" / "training_config_m4.yaml"
BAD = ROOT / "tests" / "fixtures" / "bad_configs" / "several_problems.yaml"


def test_a_config_is_loaded_as_plain_dictionaries() -> None:
    config = load_config(M4)
    assert config["training"]["learning_rate"] == 2e-4
    assert type(config["lora"]["target_modules"]) is list
    assert json.loads(json.dumps(config)) == config


def test_overrides_are_strings_or_a_mapping() -> None:
    by_strings = load_config(M4, ["training.learning_rate=1e-4", "lora.r=32"])
    assert by_strings == load_config(str(M4), {"training.learning_rate": 1e-4, "lora": {"r": 32}})
    assert by_strings["training"]["learning_rate"] == 1e-4


def test_what_a_caller_changes_does_not_reach_the_next_one() -> None:
    load_config(BAD.parents[3] / "configs" / "training_config.yaml")["lora"]["target_modules"].clear()
    assert load_config(M4)["lora"]["target_modules"]


def test_problems_are_raised_together() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(BAD)
    assert len(caught.value.findings) == 4


def test_required_fields_are_there() -> None:
    validate_required_fields(load_config(M4))


@pytest.mark.parametrize("key", schema.required_keys())
def test_a_missing_required_field_is_named(key: str) -> None:
    config = load_config(M4)
    section, name = key.split(".")
    del config[section][name]
    with pytest.raises(ConfigError) as caught:
        validate_required_fields(config)
    assert [finding.message for finding in caught.value.findings] == [f"{key} is required and missing"]


def test_all_missing_required_fields_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        validate_required_fields({"lora": None, "model": {"model_name_or_path": None}, "training": []})
    assert [finding.message.split()[0] for finding in caught.value.findings] == schema.required_keys()


def test_the_command_prints_yaml_with_each_values_origin(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(config, [str(M4), "training.learning_rate=1e-4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (rate,) = (line for line in lines if "learning_rate:" in line)
    assert rate.split("#")[0].strip() == "learning_rate: 0.0001"
    assert rate.endswith("# command line")
    (rank,) = (line for line in lines if line.startswith("  r:"))
    assert f"# {M4}:" in rank
    assert rank.index("#") == rate.index("#")


def test_what_the_command_prints_is_the_same_configuration(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    call(config, [str(M4)])
    again = tmp_path / "again.yaml"
    again.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_config(again) == load_config(M4)


def test_without_a_file_it_is_the_configuration_that_fits_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(config, ["lora.r=8", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert Path(body["config"]) == recommended(judge(probe()))
    assert body["values"]["lora"]["r"] == 8


def test_json_holds_values_and_origins(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(config, [str(M4), "lora.r=8", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["schema_version"] == 1
    assert body["values"]["lora"]["r"] == 8
    assert body["origins"]["lora.r"] == "command line"


def test_json_holds_the_findings_of_a_bad_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(config, [str(BAD), "--json"]) == 1
    body = json.loads(capsys.readouterr().out)
    assert body["verdict"] == "failed"
    assert len(body["findings"]) == 4


@pytest.mark.parametrize(
    ("arguments", "code"),
    [([str(BAD)], 1), (["nowhere.yaml"], 2), ([str(M4), "lora.r"], 2), ([str(M4), "lora.r=0"], 1)],
)
def test_a_refusal_is_on_stderr_with_its_exit_code(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(config, arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "fix:" in captured.err


def test_the_command_runs_from_any_directory_and_imports_no_torch(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "scripts" / "config_loader.py"), str(M4)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert run.stdout.startswith("model:\n  model_name_or_path: mistralai/")
    assert " torch\n" not in run.stderr


def test_help_shows_how_to_run_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        call(config, ["--help"])
    assert "python scripts/kit config configs/training_config_m4.yaml" in capsys.readouterr().out
    assert config.__doc__
