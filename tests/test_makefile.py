import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import GROUPS

TEXT = (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.search(r"^\.PHONY: (.*)$", TEXT, re.MULTILINE).group(1).split()

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """The Makefile where nothing has been set up yet."""
    shutil.copy(PROJECT_ROOT / "Makefile", tmp_path)
    (tmp_path / "tools").mkdir()
    shutil.copy(PROJECT_ROOT / "tools" / "help.awk", tmp_path / "tools")
    return tmp_path


@pytest.fixture
def installed(fresh: Path) -> Path:
    for name in (".venv", ".venv-reference"):
        (fresh / name / "bin").mkdir(parents=True)
        (fresh / name / "bin" / "python").touch()
    return fresh


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    # Variables of an outer make, and of the person who runs the tests, are not this test's.
    env = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR")}
    env |= {"LC_ALL": "C", **variables}
    return subprocess.run(["make", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False)


def recipe(folder: Path, *arguments: str) -> list[str]:
    """Return the command lines make would run."""
    return [re.sub(r" +", " ", line).strip() for line in make(folder, "-n", *arguments).stdout.splitlines()]


def test_help_is_what_make_alone_shows(fresh: Path) -> None:
    assert make(fresh).stdout == make(fresh, "help").stdout


@pytest.mark.parametrize("target", TARGETS)
def test_help_dev_shows_every_target(fresh: Path, target: str) -> None:
    assert re.search(rf"^  {target} +\S", make(fresh, "help-dev").stdout, re.MULTILINE)


@pytest.mark.parametrize("target", ["prove", "torture", "audit", "bench-cli", "test", "check", "lock", "image-sbom"])
def test_help_shows_nothing_that_only_the_kits_makers_need(fresh: Path, target: str) -> None:
    assert not re.search(rf"^  {target} ", make(fresh, "help").stdout, re.MULTILINE)


def test_the_targets_are_grouped_as_the_command_line_groups_its_commands() -> None:
    groups, group = {}, ""
    for line in TEXT.splitlines():
        group = line.removeprefix("##@ ") if line.startswith("##@") else group
        if found := re.match(r"([a-z0-9-]+): ## ", line):
            groups[found[1]] = group
    named = {command.name: group for group, commands in GROUPS.items() for command in commands}
    assert {name: group for name, group in named.items() if groups.get(name, group) != group} == {}


@pytest.mark.parametrize("name", ["CONFIG", "SET", "STACK", "RECORD", "FROM", "INPUT", "ARGS", "PYTHON"])
def test_help_shows_every_variable(fresh: Path, name: str) -> None:
    assert re.search(rf"^  {name} +\S", make(fresh, "help").stdout, re.MULTILINE)


def test_what_the_makers_run_are_modules_beside_the_product(installed: Path) -> None:
    assert recipe(installed, "docs", "ARGS=--check") == [
        f".venv/bin/python -m {folder}.document --check" for folder in ("tools", "bench")
    ]


def test_every_target_is_phony() -> None:
    assert set(re.findall(r"^([a-z][a-z0-9-]*):", TEXT, re.MULTILINE)) == set(TARGETS)


def test_detect_needs_no_setup(fresh: Path) -> None:
    assert recipe(fresh, "detect") == ["python3 scripts/kit detect"]


def test_detect_passes_recorded_facts(installed: Path) -> None:
    assert recipe(installed, "detect", "FROM=a.json", "RECORD=b.json", "ARGS=--json") == [
        '.venv/bin/python scripts/kit detect --from "a.json" --record "b.json" --json'
    ]


@pytest.mark.parametrize("target", ["validate", "config", "train"])
def test_config_and_several_overrides_reach_the_script(installed: Path, target: str) -> None:
    assert recipe(installed, target, "CONFIG=c.yaml", "SET=lora.r=8 training.seed=1") == [
        f".venv/bin/python scripts/kit {target} c.yaml lora.r=8 training.seed=1"
    ]


def test_validate_judges_for_the_stack_that_is_named(installed: Path) -> None:
    assert recipe(installed, "validate", "FROM=a.json") == ['.venv/bin/python scripts/kit validate --from "a.json"']
    assert recipe(installed, "validate", "FROM=a.json", "STACK=reference") == [
        '.venv-reference/bin/python scripts/kit validate --from "a.json" --stack reference'
    ]


def test_validate_without_a_config_leaves_the_choice_to_detection(installed: Path) -> None:
    assert recipe(installed, "validate") == [".venv/bin/python scripts/kit validate"]


def test_data_takes_several_inputs_and_what_they_are_for(installed: Path) -> None:
    assert recipe(installed, "data", "INPUT=a.jsonl hf:b/c", "CONFIG=c.yaml", "ARGS=--dedupe exact") == [
        '.venv/bin/python scripts/kit data a.jsonl hf:b/c --config "c.yaml" --dedupe exact'
    ]


def test_the_reference_stack_runs_with_its_own_python(installed: Path) -> None:
    assert recipe(installed, "train", "STACK=reference") == [".venv-reference/bin/python scripts/kit train"]


def test_train_m4_has_its_own_config_and_requires_the_machine(installed: Path) -> None:
    assert recipe(installed, "train-m4", "SET=training.seed=1")[-1] == (
        ".venv/bin/python scripts/kit train configs/training_config_m4.yaml training.seed=1 --require m4"
    )


def test_train_m4_prefers_what_setup_m4_made(installed: Path) -> None:
    (installed / ".venv-m4" / "bin").mkdir(parents=True)
    (installed / ".venv-m4" / "bin" / "python").touch()
    assert recipe(installed, "train-m4")[-1].startswith(".venv-m4/bin/python ")


@pytest.mark.parametrize("target", ["detect", "validate", "config", "train"])
def test_every_command_runs_with_what_setup_m4_made_where_that_is_all_there_is(fresh: Path, target: str) -> None:
    (fresh / ".venv-m4" / "bin").mkdir(parents=True)
    (fresh / ".venv-m4" / "bin" / "python").touch()
    assert recipe(fresh, target)[-1].startswith(".venv-m4/bin/python ")
    assert not recipe(fresh, target, "STACK=reference")[-1].startswith(".venv")


@pytest.fixture
def mps_settings(installed: Path) -> Callable[..., str]:
    """What a run sees of PyTorch's MPS settings."""
    python = installed / ".venv" / "bin" / "python"
    python.write_text("#!/bin/sh\nenv | grep ^PYTORCH | sort | tr '\\n' ' '\n")
    python.chmod(0o755)

    def run(**variables: str) -> str:
        return make(installed, "train-m4", **variables).stdout.strip()

    return run


def test_train_m4_keeps_mps_within_metals_working_set(mps_settings: Callable[..., str]) -> None:
    # Both, since PyTorch refuses a low mark above the high one; and no fallback to the CPU that nobody asked for.
    assert mps_settings() == "PYTORCH_MPS_HIGH_WATERMARK_RATIO=1.0 PYTORCH_MPS_LOW_WATERMARK_RATIO=0.9"


def test_train_m4_leaves_a_persons_own_mps_settings(mps_settings: Callable[..., str]) -> None:
    own = {"PYTORCH_MPS_HIGH_WATERMARK_RATIO": "0.8", "PYTORCH_MPS_LOW_WATERMARK_RATIO": "0.7"}
    assert mps_settings(**own) == " ".join(f"{name}={value}" for name, value in own.items())


def test_setup_m4_is_the_script(fresh: Path) -> None:
    assert recipe(fresh, "setup-m4", "ARGS=--check") == ["./setup_m4.sh --check"]


def test_demo_sets_up_first(fresh: Path) -> None:
    assert recipe(fresh, "demo") == [
        "python3 -m tools.setup_environment --stack current",
        ".venv/bin/python scripts/kit demo",
    ]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["report"], "report"),
        (["report", "RUN=my run"], 'report "my run"'),
        (["watch", "RUN=demo", "ARGS=--once"], 'watch "demo" --once'),
        (["runs", "ARGS=--sort loss"], "runs --sort loss"),
        (["reproduce", "RUN=my run", "ARGS=--check-only"], 'reproduce "my run" --check-only'),
        (["reproduce", "SET=data.train_file=a.jsonl"], "reproduce data.train_file=a.jsonl"),
    ],
)
def test_what_looks_at_runs_gets_the_run(installed: Path, arguments: list[str], command: str) -> None:
    assert recipe(installed, *arguments) == [f".venv/bin/python scripts/kit {command}"]


def test_all_tests_have_the_tools_they_look_with(fresh: Path) -> None:
    assert "python3 -m tools.setup_environment --dev" in recipe(fresh, "test")


def test_setup_can_run_with_another_python(fresh: Path) -> None:
    assert recipe(fresh, "setup", "PYTHON=python3.12", "STACK=reference") == [
        "python3.12 -m tools.setup_environment --stack reference"
    ]


def test_train_h100_is_the_reference_stack_unless_another_is_named(fresh: Path) -> None:
    config = "configs/training_config_h100.yaml"
    assert recipe(fresh, "train-h100") == [f"python3 scripts/kit image --stack reference train {config}"]
    assert recipe(fresh, "train-h100", "STACK=current", "CONFIG=mine.yaml", "SET=training.seed=1") == [
        "python3 scripts/kit image --stack current train mine.yaml training.seed=1"
    ]


def test_fitting_reaches_training_wherever_it_runs(fresh: Path) -> None:
    for target in ("train", "train-m4", "train-h100"):
        (command,) = [line for line in recipe(fresh, target, "ARGS=--auto-fit") if "scripts/" in line]
        assert command.endswith(" --auto-fit")


def test_an_image_without_flash_attention_differs_from_one_where_nothing_was_said(fresh: Path) -> None:
    assert recipe(fresh, "image", "FLASH_ATTN_WHEEL=") == [
        'python3 scripts/kit image --stack reference --flash-attn-wheel "" build'
    ]
    assert recipe(fresh, "image") == ["python3 scripts/kit image --stack reference build"]


def test_the_images_base_and_network_can_be_chosen(fresh: Path) -> None:
    assert recipe(fresh, "image", "BASE_IMAGE=debian:12", "BUILD_NETWORK=host") == [
        'python3 scripts/kit image --stack reference --base-image "debian:12" --network "host" build'
    ]


def test_the_demo_in_the_image_is_the_current_stacks(fresh: Path) -> None:
    assert recipe(fresh, "demo-image") == ["python3 scripts/kit image --stack current demo"]


@pytest.mark.parametrize(
    ("target", "arguments"),
    [("detect", "detect"), ("validate", "validate c.yaml lora.r=8"), ("shell-h100", "shell"), ("prove", "prove")],
)
def test_commands_can_run_inside_the_image(fresh: Path, target: str, arguments: str) -> None:
    given = ["CONFIG=c.yaml", "SET=lora.r=8"] if target == "validate" else []
    assert recipe(fresh, target, "IN=docker", *given) == [f"python3 scripts/kit image --stack reference {arguments}"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize("target", [["train", "RESUME=auto"], ["train-m4"], ["reproduce", "RUN=a b"]])
def test_a_sigterm_to_make_alone_reaches_what_it_runs(installed: Path, target: list[str]) -> None:
    """Where a value was quoted a shell stood between: it ended, and the run went on by itself."""
    python = installed / ".venv/bin/python"
    python.write_text(
        '#!/bin/sh\ntrap "touch heard; exit 143" TERM\ntouch started\nfor _ in $(seq 200); do sleep 0.05; done\n'
    )
    python.chmod(0o755)
    with subprocess.Popen(["make", *target], cwd=installed, stderr=subprocess.DEVNULL) as process:
        while not (installed / "started").exists():
            time.sleep(0.01)
        process.terminate()
        process.wait(timeout=30)
    deadline = time.monotonic() + 30
    while not (installed / "heard").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (installed / "heard").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("STACK=newest", "must be current or reference"),
        ("IN=podman", "must be docker"),
        ("GPUS=2", "the kit trains on one GPU so far"),
    ],
)
def test_a_value_that_would_be_ignored_is_refused(fresh: Path, argument: str, message: str) -> None:
    done = make(fresh, "setup", argument)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize("feature", [r"\.ONESHELL", r"\.SHELLFLAGS", r"!=", r"\$\(file ", r"&:", r"::="])
def test_nothing_newer_than_gnu_make_3_81_is_used(feature: str) -> None:
    assert not re.search(feature, TEXT)
