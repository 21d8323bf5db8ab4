from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from chat_folders import write_chat_folder
from kit.checks.preflight import Preflight
from kit.cli.command import call
from kit.cli.findings import error
from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import validate
from kit.environment import probe
from kit.plan import run_plan as planning
from kit.plan.limits import MemoryLimit
from kit.stacks.stack import installed_stack
from mistral.templates import V02_SEPTEMBER
from small_run import CONFIG, overrides

if TYPE_CHECKING:
    from pathlib import Path

MACHINES = PROJECT_ROOT / "tests/fixtures/machines"
RECORDS = {"h100": "h100_80gb.json", "m4": "m4_32gb.json"}


@pytest.fixture
def chat_folder(tmp_path: Path) -> Path:
    return write_chat_folder(tmp_path, V02_SEPTEMBER, "metaspace")


def _findings(capsys: pytest.CaptureFixture[str]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for finding in json.loads(capsys.readouterr().out)["findings"]:
        found.setdefault(finding["id"], []).append(finding)
    return found


def test_the_demo_is_ready_on_this_machine(tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(validate, [str(CONFIG), *overrides(tiny_base, tmp_path), "--no-probe"]) == 0
    out = capsys.readouterr().out
    assert "ready (" in out
    assert out.splitlines()[-1].startswith("next: ")


@pytest.mark.slow
def test_the_device_is_really_worked(tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(validate, [str(CONFIG), *overrides(tiny_base, tmp_path), "--json"]) == 0
    assert any(finding["severity"] == "ok" for finding in _findings(capsys)["environment.device_works"])


@pytest.mark.parametrize(("platform", "command"), [("h100", "make train-h100"), ("m4", "make train-m4")])
def test_from_configuration_to_the_recommended_command(
    capsys: pytest.CaptureFixture[str], platform: str, command: str
) -> None:
    """End to end on a recorded machine: without a configuration, the recommended one, and the command that runs it."""
    sample = PROJECT_ROOT / "data/sample"
    changes = [f"data.train_file={sample}/train.jsonl", f"data.val_file={sample}/val.jsonl"]
    # The stack that runs there is not the one that runs this test; what is asserted is the way from facts to command.
    code = call(validate, [*changes, "--from", str(MACHINES / RECORDS[platform]), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["platform"] == platform
    assert told["config"].endswith(f"training_config_{platform}.yaml")
    assert [finding for finding in told["findings"] if finding["severity"] == "error"] == []
    assert code == 0
    assert told["next_command"].startswith(command)


def test_every_kind_of_problem_is_shown_at_once(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a"}\n', encoding="utf-8")
    changes = overrides(tiny_base, tmp_path, data__train_file=rows, training__optim="paged_adamw_32bit")
    assert call(validate, [str(CONFIG), *changes, "--no-probe", "--json"]) == 1
    errors = [
        finding for findings in _findings(capsys).values() for finding in findings if finding["severity"] == "error"
    ]
    text = json.dumps(errors)
    assert "paged_adamw_32bit" in text
    assert f"{rows}:1" in text
    assert all(finding["fix"] for finding in errors)


def test_validation_rows_that_are_trained_on_are_named(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    val = PROJECT_ROOT / "data/sample/val.jsonl"
    changes = overrides(tiny_base, tmp_path, data__train_file=val, data__val_file=_copy(val, tmp_path))
    call(validate, [str(CONFIG), *changes, "--no-probe", "--json"])
    assert _findings(capsys)["data.leakage"][0]["severity"] == "warning"


def _copy(path: Path, folder: Path) -> Path:
    return (folder / "copy.jsonl") if (folder / "copy.jsonl").write_bytes(path.read_bytes()) else path


def test_a_wrong_configuration_still_shows_the_machine_and_works_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It imported the libraries and trained a step, for half a minute, before it named the wrong key."""
    monkeypatch.setattr(probe, "work_device", lambda *_, **__: pytest.fail("the device was worked"))
    config = tmp_path / "config.yaml"
    config.write_text("lora:\n  rank: 16\n", encoding="utf-8")
    assert call(validate, [str(config), "--json"]) == 1
    found = _findings(capsys)
    assert found["config.unknown_key"][0]["where"] == f"{config}:2"
    assert "machine.memory" in found
    assert found["environment.access"][0]["severity"] == "skipped"
    assert found["environment.device_probe"][0]["severity"] == "skipped"
    said = json.dumps(found)
    assert "mistralai" not in said, "the default model is not what a broken configuration asks for"
    assert "disk for" not in said


@pytest.mark.parametrize(
    "given", [["nowhere.yaml"], ["configs/training_config_demo.yaml", "no assignment"]], ids=["a file", "an override"]
)
def test_what_cannot_be_read_is_said_before_anything_is_looked_at(
    given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: Any, **__: Any) -> NoReturn:
        pytest.fail("the environment was asked")

    monkeypatch.setattr(validate, "probe_environment", never)
    assert call(validate, [*given, "--json"]) == 2
    found = _findings(capsys)
    assert any(name.startswith(("config.file.", "config.override.")) for name in found)
    assert found["validate.rest"][0]["severity"] == "skipped"


@pytest.mark.parametrize("record", ["nowhere.json", "README.md"])
def test_an_unreadable_record_is_wrong_use(record: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(validate, ["--from", str(PROJECT_ROOT / record)]) == 2
    assert "fix:" in capsys.readouterr().err


def test_torch_is_not_imported() -> None:
    program = (
        "import sys; sys.path.insert(0, 'scripts'); from kit.cli.command import call; "
        "from kit.commands import validate; "
        "call(validate, ['--no-probe', '--json']); "
        "sys.exit(bool({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT_ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_fresh_clone_is_ready_for_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo's base model is made by the demo: that it is not there yet stands in nobody's way."""
    for name in ("configs", "data"):
        (tmp_path / name).symlink_to(PROJECT_ROOT / name)
    monkeypatch.chdir(tmp_path)
    assert call(validate, ["configs/training_config_demo.yaml", "--no-probe"]) == 0
    out = capsys.readouterr().out
    assert "the demo's base model does not exist yet" in out
    assert out.splitlines()[-1] == "next: make demo"


def test_what_training_would_fit_by_itself_is_judged_as_it_would_be_fitted(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "memory_limit", lambda *_: MemoryLimit(1_400_000_000, "made up"))
    command = [str(CONFIG), *overrides(tiny_base, tmp_path, training__per_device_train_batch_size=64), "--no-probe"]
    assert call(validate, [*command, "--json"]) == 1
    assert _findings(capsys)["config.memory"][0]["severity"] == "error"
    assert call(validate, [*command, "--auto-fit", "--json"]) == 0
    found = _findings(capsys)
    assert found["config.memory"][0]["severity"] == "ok"
    assert found["config.auto_fit"][0]["severity"] == "warning"
    assert "training.per_device_train_batch_size=" in found["config.auto_fit"][0]["message"]


def test_what_a_rule_says_with_its_line_the_environment_does_not_say_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = error("config.wandb.missing", "no wandb", "make setup", "c.yaml:3")
    again = error("environment.wandb_missing", "wandb is not there", "make setup")
    other = error("environment.four_bit", "no 4-bit", "make setup")
    monkeypatch.setattr(validate, "check_run", lambda *_, **__: Preflight([rule], None, None, None, None))
    monkeypatch.setattr(validate, "check_environment", lambda *_, **__: [again, other])
    assert call(validate, [str(CONFIG), "--json"]) == 1
    told = _findings(capsys)
    assert told.keys() >= {"config.wandb.missing", "environment.four_bit"}
    assert "environment.wandb_missing" not in told


STACK_OF = {
    "reference": (["h100_80gb.json"], ["rtx_4090.json", "--stack", "reference"]),
    "current": (["h100_80gb.json", "--stack", "current"], ["m4_32gb.json"], ["rtx_4090.json"]),
}


@pytest.mark.parametrize(("stack", "asked"), [(stack, asked) for stack, many in STACK_OF.items() for asked in many])
def test_a_recorded_machine_is_judged_for_the_stack_that_runs_there(
    chat_folder: Path, capsys: pytest.CaptureFixture[str], asked: list[str], stack: str
) -> None:
    """`make train-h100` runs the image's stack; what is installed on the laptop that asks says nothing."""
    record, *more = asked
    call(validate, [f"model.model_name_or_path={chat_folder}", "--from", str(MACHINES / record), *more, "--json"])
    (found,) = _findings(capsys)["model.tokenizer_form"]
    assert found["message"].startswith(f"the {stack} stack reads tokenizer.json ")
    assert ("in an equivalent older form" in found["message"]) == (stack == "reference")


@pytest.mark.parametrize(
    ("asked", "following"),
    [
        (["h100_80gb.json"], "make train-h100 SET="),
        (["h100_80gb.json", "--stack", "current"], "make train-h100 STACK=current SET="),
        (["m4_32gb.json", "--stack", "current"], "make train-m4 STACK=current SET="),
        (["rtx_4090.json"], "make train CONFIG="),
    ],
)
def test_the_next_command_runs_the_stack_that_was_judged(
    capsys: pytest.CaptureFixture[str], asked: list[str], following: str
) -> None:
    record, *more = asked
    rows = [f"data.train_file={PROJECT_ROOT}/data/sample/train.jsonl", "data.val_file=null"]
    assert call(validate, [*rows, "--from", str(MACHINES / record), *more, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["next_command"].startswith(following)


def test_what_a_stack_cannot_do_is_judged_by_what_its_lock_holds(capsys: pytest.CaptureFixture[str]) -> None:
    sample = PROJECT_ROOT / "data/sample/train.jsonl"
    levers = ["training.padding_free=true", "training.use_liger_kernel=true", "data.val_file=null"]
    command = [f"data.train_file={sample}", *levers, "--from", str(MACHINES / "h100_80gb.json"), "--json"]
    assert call(validate, [*command, "--stack", "current"]) == 0
    capsys.readouterr()
    assert call(validate, command) == 1
    found = _findings(capsys)
    assert "transformers 4.36.0" in found["config.levers.padding_free"][0]["message"]
    assert found["config.levers.liger_kernel"][0]["severity"] == "error"


def test_another_stack_than_the_installed_one_is_not_judged_here(capsys: pytest.CaptureFixture[str]) -> None:
    other = "reference" if installed_stack().name == "current" else "current"
    assert call(validate, ["--stack", other]) == 2
    assert f"make setup STACK={other}" in capsys.readouterr().err
