"""Whichever Python starts a command, it ends up in one that has the kit's packages, or says how to get them."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kit.cli import interpreter
from kit.cli.interpreter import PROJECT_ROOT, python_path
from kit.cli.refusals import refusal_in
from kit.environment.access_probe import hub_cache, probe_wandb, without_home

SCRIPTS = str(PROJECT_ROOT / "scripts")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, SCRIPTS),
        ("", SCRIPTS),
        ("/carried", f"{SCRIPTS}:/carried"),
        (f"/carried:{SCRIPTS}::/more", f"{SCRIPTS}:/carried:/more"),
    ],
)
def test_a_child_finds_the_kit_and_what_this_process_was_given(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if given is not None:
        monkeypatch.setenv("PYTHONPATH", given)
    assert python_path() == expected


BEFORE_ANYTHING = tuple(
    f"cli/{name}" for name in ("console", "foreground", "interpreter", "logins", "redaction", "screen")
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project of which nothing is there but the modules every command begins with."""
    for name in ("cli/__init__", *BEFORE_ANYTHING, "files/__init__", "files/regular_files", "__init__"):
        there = tmp_path / f"scripts/kit/{name}.py"
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT_ROOT / f"scripts/kit/{name}.py", there)
    program = (
        "import sys\nfrom pathlib import Path\nsys.path.insert(0, str(Path.cwd()))\n"
        "from kit.cli.interpreter import use_project_python\nuse_project_python()\nprint('here')\n"
    )
    (tmp_path / "scripts/folder").mkdir()
    for name in ("command", "folder/__main__"):
        (tmp_path / f"scripts/{name}.py").write_text(program, encoding="utf-8")
    return tmp_path


def _run_without_packages(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    arguments = [sys.executable, "-S", *(command or ("command.py",)), "--flag"]
    folder = project / "scripts"
    return subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment, cwd=folder)


@pytest.mark.parametrize("command", [("command.py",), ("-m", "command"), ("-m", "folder"), ("folder",)])
def test_a_python_without_the_packages_hands_over_to_the_project_s(project: Path, command: tuple[str, ...]) -> None:
    python = project / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "handed over: $*"\n', encoding="utf-8")
    python.chmod(0o755)
    done = _run_without_packages(project, *command)
    assert done.stdout == f"handed over: {' '.join(command)} --flag\n", done.stderr


def test_a_user_whom_the_system_has_no_name_for_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with -u 12345, where torch did not import and a command without a home ended as a bug."""

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    interpreter._name_this_user()
    assert getpass.getuser() == str(os.getuid())
    assert (hub_cache(), without_home(Path("/a"))) == (Path("~/.cache/huggingface/hub"), "/a")
    assert probe_wandb().login in {"none", "environment"}
    with pytest.raises(RuntimeError) as caught:
        Path("~/runs").expanduser()
    refusal = refusal_in(caught.value)
    assert refusal is not None
    assert refusal.message == "a path begins with ~, but that home folder does not exist"


def test_without_an_environment_the_command_that_makes_one_is_named(project: Path) -> None:
    done = _run_without_packages(project)
    assert done.returncode == 2
    assert "lacks cerberus, packaging, yaml" in done.stderr
    assert "fix: make setup" in done.stderr
    assert done.stdout == ""
