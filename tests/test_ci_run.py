import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kit.cli.interpreter import PROJECT_ROOT

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with what the script itself needs and a make that does as it is told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "dirname", "uname", "tr", "id", "sh", "env"):
        (folder / name).symlink_to(shutil.which(name) or name)
    for name, body in {"make": '[ "$1" != "$FAILS" ]', "git": ":", "python3": ":"}.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


def run(tools: Path, fails: str = "") -> subprocess.CompletedProcess[str]:
    env = {"PATH": str(tools), "HOME": os.environ.get("HOME", "/"), "FAILS": fails, "CI": "true"}
    command = [str(tools / "bash"), str(PROJECT_ROOT / ".ci" / "run")]
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def test_all_parts_pass(tools: Path) -> None:
    done = run(tools)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "4 passed, 0 failed, 0 skipped")


def test_a_failed_part_fails_the_run_and_the_others_still_run(tools: Path) -> None:
    done = run(tools, fails="check")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "3 passed, 1 failed, 0 skipped")


def test_what_cannot_run_says_why_and_is_no_success(tools: Path) -> None:
    (tools / "python3").unlink()
    done = run(tools)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "0 passed, 0 failed, 4 skipped")
    assert "== test: skipped: there is no python3" in done.stdout


def test_without_make_only_what_needs_none_runs(tools: Path) -> None:
    (tools / "make").unlink()
    done = run(tools)
    assert done.stdout.splitlines()[-1] == "1 passed, 0 failed, 3 skipped"
    assert "== test: skipped: there is no make" in done.stdout


def test_a_part_that_could_not_run_here_is_skipped_and_no_failure(tools: Path) -> None:
    (tools / "python3").write_text('#!/bin/sh\ncase "$*" in *image*) exit 77 ;; esac\n')
    done = run(tools)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "3 passed, 0 failed, 1 skipped")


def test_what_is_missing_is_installed_where_that_is_possible(tools: Path) -> None:
    (tools / "python3").unlink()
    (tools / "id").unlink()
    bodies = {
        "id": "echo 0",
        "apt-get": f'echo "apt-get $*"; ln -sf "{tools}/git" "{tools}/python3"',
    }
    (tools / "ln").symlink_to(shutil.which("ln") or "ln")
    for name, body in bodies.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    done = run(tools)
    assert "python3 python3-venv" in done.stdout
    assert done.stdout.splitlines()[-1] == "4 passed, 0 failed, 0 skipped"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_browser_is_installed_by_itself_so_that_a_system_without_one_gets_the_rest(
    tools: Path, is_there: bool
) -> None:
    (tools / "id").unlink()
    (tools / "python3").unlink()
    bodies = {
        "id": "echo 0",
        # Like apt-get, it installs nothing at all where one of the names is unknown.
        "apt-get": 'case "$*" in *chromium*) exit 100 ;; *install*) ln -sf "$BIN/git" "$BIN/python3" ;; esac',
        **({"google-chrome": ":"} if is_there else {}),
    }
    (tools / "ln").symlink_to(shutil.which("ln") or "ln")
    for name, body in bodies.items():
        (tools / name).write_text(f"#!/bin/sh\nBIN={tools}\n{body}\n")
        (tools / name).chmod(0o755)
    done = run(tools)
    assert ("chromium" in done.stdout) != is_there
    assert done.stdout.splitlines()[-1] == "4 passed, 0 failed, 0 skipped"
