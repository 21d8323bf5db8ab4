"""docs/SETUP_H100.md and docs/STACKS.md: their commands are the kit's, and what they quote is what the kit says."""

import re
import shlex
import shutil
import subprocess

import pytest

from kit.image.build import FLASH_ATTN_WHEELS
from kit.interpreter import PROJECT_ROOT
from kit.setup.locks import packages

TEXT = (PROJECT_ROOT / "docs" / "SETUP_H100.md").read_text(encoding="utf-8")
STACKS = (PROJECT_ROOT / "docs" / "STACKS.md").read_text(encoding="utf-8")
IN_BLOCKS = [
    line for block in re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]
COMMANDS = sorted({*IN_BLOCKS, *re.findall(r"`(make [^`]*)`", TEXT + STACKS)})
MAKE = [command for command in COMMANDS if command.startswith("make ")]


def test_the_commands_are_found() -> None:
    assert len(MAKE) >= 10


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("command", MAKE)
def test_make_knows_each_command(command: str) -> None:
    words = shlex.split(command)
    done = subprocess.run(["make", "-n", *words[1:]], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_default_wheel_is_the_one_described() -> None:
    assert FLASH_ATTN_WHEELS["reference"].rpartition("/")[2] in TEXT


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
        ("this user may not talk to the Docker daemon", "engine_rules.py"),
        ("the engine cannot hand a GPU to a container", "engine_rules.py"),
        ("has no buildx", "engine_rules.py"),
        ("cannot be written by user", "start.py"),
        ("cannot be downloaded", "flash_attn_wheel.py"),
    ],
)
def test_trouble_is_quoted_as_the_kit_says_it(said: str, by: str) -> None:
    assert said in TEXT
    assert said in (PROJECT_ROOT / "scripts" / "kit" / "image" / by).read_text()
