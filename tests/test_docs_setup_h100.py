"""docs/SETUP_H100.md and docs/STACKS.md: each command of the container is run on a host that is not there; what they
quote is what the kit says."""

from __future__ import annotations

import re
import shlex
import shutil
from typing import TYPE_CHECKING

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.stacks.locks import packages
from kit.stacks.reference import FLASH_ATTN_WHEEL
from stand_in_engine import EngineHost

if TYPE_CHECKING:
    from pathlib import Path

TEXT = (PROJECT_ROOT / "docs" / "SETUP_H100.md").read_text(encoding="utf-8")
STACKS = (PROJECT_ROOT / "docs" / "STACKS.md").read_text(encoding="utf-8")
IN_BLOCKS = [
    line for block in re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]
COMMANDS = sorted({*IN_BLOCKS, *re.findall(r"`(make [^`]*)`", TEXT + STACKS)})
MAKE = [command for command in COMMANDS if command.startswith("make ")]
# These need nothing but the engine; the rest set up, train or check on this machine itself.
IN_THE_ENGINE = re.compile(r"make (image(?!-sbom)|train-h100|shell-h100|demo-image)\b|make .*\bIN=docker\b")


def test_the_commands_are_found() -> None:
    assert len(MAKE) >= 19
    assert len([command for command in MAKE if IN_THE_ENGINE.match(command)]) >= 14
    assert [command.split()[0] for command in IN_BLOCKS if not command.startswith("make ")] == ["cp", "docker"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What these commands see of a clone, in a folder with spaces."""
    target = tmp_path_factory.mktemp("clone") / "a project with spaces"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("configs", "data/sample", "docker", "locks", "scripts"):
        shutil.copytree(PROJECT_ROOT / name, target / name, ignore=ignore)
    for name in (".dockerignore", ".env.example", "LICENSE", "Makefile", "pyproject.toml"):
        shutil.copy(PROJECT_ROOT / name, target)
    return target


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("command", [command for command in MAKE if IN_THE_ENGINE.match(command)])
def test_each_command_of_the_container_runs(clone: Path, tmp_path: Path, command: str) -> None:
    host = EngineHost(tmp_path)
    done = host.run(*shlex.split(command), cwd=clone)
    assert done.returncode == 0, done.stderr
    if command != "make image-check":
        assert host.calls(), "the engine was asked for nothing"


@pytest.mark.parametrize("command", [command for command in IN_BLOCKS if not command.startswith("make ")])
def test_each_command_by_hand_runs_in_the_projects_folder(clone: Path, tmp_path: Path, command: str) -> None:
    words = shlex.split(command)
    done = EngineHost(tmp_path).run(*words, cwd=clone)
    assert done.returncode == 0, done.stderr
    # The engine is none; what it would read has to be there.
    named = [word for word in words if word.endswith((".yaml", ".example"))]
    assert named
    assert [name for name in named if not (clone / name).is_file()] == []


@pytest.mark.parametrize(
    ("command", "reaches"),
    [
        ("make train-h100 STACK=current", "train configs/training_config_h100.yaml"),
        ('make train-h100 SET="training.learning_rate=1e-4 training.run_name=lower"',
         "train configs/training_config_h100.yaml training.learning_rate=1e-4 training.run_name=lower"),
        ("make validate IN=docker CONFIG=configs/training_config_h100.yaml",
         "validate configs/training_config_h100.yaml"),
        ("make demo-image", "demo"),
    ],
)  # fmt: skip
def test_what_a_command_asks_for_reaches_the_container(clone: Path, tmp_path: Path, command: str, reaches: str) -> None:
    host = EngineHost(tmp_path)
    assert f"`{command}`" in TEXT
    host.run(*shlex.split(command), cwd=clone)
    assert host.calls()[-1].endswith(reaches)


def test_the_default_wheel_is_the_one_described() -> None:
    assert FLASH_ATTN_WHEEL.rpartition("/")[2] in TEXT


@pytest.mark.parametrize(("name", "column"), [("reference", 1), ("current", 2)])
@pytest.mark.parametrize("package", ["transformers", "peft", "trl", "bitsandbytes", "accelerate", "torch"])
def test_the_versions_are_those_of_the_locks(name: str, column: int, package: str) -> None:
    locked = packages((PROJECT_ROOT / "locks" / f"{name}-linux-x86_64.txt").read_text())
    row = next(line for line in STACKS.splitlines() if line.startswith("| ") and package in line.split("|")[1])
    assert locked[package].split("+")[0] in row.split("|")[column + 1]


@pytest.mark.parametrize(
    ("said", "by"),
    [
        ("there is no docker on PATH", "engine_rules.py"),
        ("this user has no access to the Docker daemon", "engine_rules.py"),
        ("the engine cannot pass a GPU to a container", "engine_rules.py"),
        ("has no buildx", "engine_rules.py"),
        ("is not writable for user", "start.py"),
        ("cannot be downloaded", "flash_attn_wheel.py"),
    ],
)
def test_trouble_is_quoted_as_the_kit_says_it(said: str, by: str) -> None:
    assert said in TEXT
    assert said in (PROJECT_ROOT / "scripts" / "kit" / "image" / by).read_text()
