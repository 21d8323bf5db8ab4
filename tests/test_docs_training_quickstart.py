"""docs/TRAINING_QUICKSTART.md: its commands are the kit's, those that can run here do, and it quotes what they say."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config import schema

TEXT = (PROJECT_ROOT / "docs" / "TRAINING_QUICKSTART.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]
SAID = [body for kind, body in re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL) if not kind]
# What looks and does not train; validation ends in 1, since the rows of data/processed/ are a person's own.
RUN_HERE = {
    "make detect": 0,
    "make detect FROM=tests/fixtures/machines/h100_80gb.json": 0,
    "make detect FROM=tests/fixtures/machines/m4_32gb.json": 0,
    'make config CONFIG=configs/training_config_m4.yaml SET="training.learning_rate=1e-4 lora.r=32"': 0,
    "make runs": 0,
}
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(command: str, *more: str) -> subprocess.CompletedProcess[str]:
    words = ["make", *more, *shlex.split(command)[1:]]
    return subprocess.run(words, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)


def test_the_five_sections_are_there_in_order() -> None:
    headings = re.findall(r"^## (\d)\. ", TEXT, re.MULTILINE)
    assert headings == ["1", "2", "3", "4", "5"]


@needs_make
@pytest.mark.parametrize("command", list(RUN_HERE))
def test_what_can_run_here_does(command: str) -> None:
    assert command in COMMANDS
    done = make(command)
    assert done.returncode == RUN_HERE[command], done.stderr


@needs_make
def test_detection_says_what_is_quoted() -> None:
    assert len(SAID) == 2
    for command, quoted in zip(("h100_80gb", "m4_32gb"), SAID, strict=True):
        lines = make(f"make detect FROM=tests/fixtures/machines/{command}.json").stdout.splitlines()
        assert set(quoted.splitlines()) <= set(lines)


@needs_make
def test_validation_names_what_is_missing_as_the_table_says() -> None:
    command = "make validate CONFIG=configs/training_config_h100.yaml FROM=tests/fixtures/machines/h100_80gb.json"
    done = make(command)
    if "data/processed/train.jsonl does not exist" not in done.stdout:
        pytest.skip("there are rows in data/processed")
    assert "planned peak 17.4 GB" in done.stdout
    words = " ".join(TEXT.split())
    assert "17.4 GB by arithmetic with the reference stack" in words
    assert "planned peak 15.6 GB" in make(f"{command} STACK=current").stdout
    assert "15.6 GB at the peak with the current stack" in words


def test_every_key_it_names_is_one_of_the_schemas() -> None:
    named = set(re.findall(r"\b((?:model|lora|data|training|wandb)\.[a-z_]+)=", TEXT))
    assert len(named) > 10
    assert named <= set(schema.keys())


@pytest.mark.parametrize(
    ("said", "by"),
    [
        ("is not a configuration key", "config/findings.py"),
        ("has no trainable tokens: the answer lies beyond", "data/dataset.py"),
        ("already holds a run", "checks/preflight.py"),
        ("killed?", "run_directory/liveness.py"),
    ],
)
def test_trouble_is_quoted_as_the_kit_says_it(said: str, by: str) -> None:
    assert said in TEXT
    assert said in (PROJECT_ROOT / "scripts" / "kit" / by).read_text(encoding="utf-8")
