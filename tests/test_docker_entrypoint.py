"""docker/entrypoint as it is, but for its folder, around a Python that writes down how it was called."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from kit.cli.interpreter import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("sh") is None, reason="sh is not installed")
H100 = "configs/training_config_h100.yaml"
# Each argument in brackets, so that a space inside one shows.
PYTHON = """#!/bin/sh
for argument; do printf '[%s]' "$argument"; done >>"{log}"
echo >>"{log}"
case "$*" in *{fails}*) exit 1 ;; esac
"""


@dataclass(frozen=True)
class Container:
    folder: Path

    def run(self, *arguments: str, fails: str = "nothing") -> tuple[int, list[str]]:
        """Return the exit code, and what Python was called with."""
        log = self.folder / "log"
        text = (PROJECT_ROOT / "docker" / "entrypoint").read_text(encoding="utf-8")
        assert text.count("\ncd /kit\n") == 1
        (self.folder / "entrypoint").write_text(text.replace("\ncd /kit\n", f"\ncd '{self.folder}'\n"))
        (self.folder / "python").write_text(PYTHON.format(log=log, fails=fails))
        (self.folder / "python").chmod(0o755)
        command = ["sh", str(self.folder / "entrypoint"), *arguments]
        env = {"PATH": f"{self.folder}:/usr/bin:/bin"}
        code = subprocess.run(command, env=env, capture_output=True, check=False).returncode
        return code, log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def test_without_a_word_it_looks_validates_and_trains(container: Container) -> None:
    assert container.run() == (
        0,
        ["[-m][kit.image.start]", f"[scripts/kit][validate][{H100}]", f"[scripts/kit][train][--resume=auto][{H100}]"],
    )


@pytest.mark.parametrize(("fails", "calls"), [("kit.image.start", 1), ("validate", 2)])
def test_nothing_is_trained_where_a_look_before_fails(container: Container, fails: str, calls: int) -> None:
    code, called = container.run("train", fails=fails)
    assert (code, len(called)) == (1, calls)
    assert not any("[train]" in call for call in called)


def test_values_reach_both_as_they_were_given(container: Container) -> None:
    values = ["mine.yaml", "training.run_name=it's a run", 'model.revision=$(id) `id` \\ "x"']
    _, called = container.run("train", *values)
    given = "".join(f"[{value}]" for value in values)
    assert called[1:] == [f"[scripts/kit][validate]{given}", f"[scripts/kit][train][--resume=auto]{given}"]


def test_the_trainers_own_options_are_not_for_validation(container: Container) -> None:
    options = ["--overwrite", "--resume", "never", "--allow-changed=training.seed", "--allow-changed", "lora.r"]
    _, called = container.run("train", "mine.yaml", *options)
    given = "".join(f"[{option}]" for option in options)
    assert called[1:] == [
        "[scripts/kit][validate][mine.yaml]",
        f"[scripts/kit][train][--resume=auto][mine.yaml]{given}",
    ]


@pytest.mark.parametrize("option", ["--auto-fit", "--auto-fit=fast"])
def test_fitting_is_for_both_so_that_validation_does_not_stop_what_training_mends(
    container: Container, option: str
) -> None:
    _, called = container.run("train", "mine.yaml", option)
    assert called[1:] == [
        "[scripts/kit][validate][mine.yaml][--auto-fit]",
        f"[scripts/kit][train][--resume=auto][mine.yaml][{option}]",
    ]


@pytest.mark.parametrize("first", ["training.seed=1", "--json"])
def test_values_without_a_configuration_are_for_the_h100s(container: Container, first: str) -> None:
    assert container.run("validate", first) == (0, [f"[scripts/kit][validate][{H100}][{first}]"])


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        (("detect", "--json"), "[scripts/kit][detect][--json]"),
        (("demo",), "[scripts/kit][demo]"),
        (("python", "-V"), "[-V]"),
    ],
)
def test_each_word_is_its_script_and_anything_else_a_program(
    container: Container, arguments: tuple[str, ...], called: str
) -> None:
    assert container.run(*arguments) == (0, [called])


def test_the_exit_code_is_that_of_what_ran(container: Container) -> None:
    assert container.run("sh", "-c", "exit 143")[0] == 143
