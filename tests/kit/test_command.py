"""How every command ends, whatever it ran into."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kit.interpreter import PROJECT_ROOT

COMMANDS = sorted(path for path in (PROJECT_ROOT / "scripts").glob("*.py"))


def _run(body: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose ``main`` is this body."""
    code = f"from kit.command import run_main\ndef main():\n    {body}\nrun_main(main)"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT / "scripts"), **variables}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.name)
def test_every_command_ends_in_the_one_way(path: object) -> None:
    ending = PROJECT_ROOT.joinpath(str(path)).read_text(encoding="utf-8").rpartition('if __name__ == "__main__":\n')[2]
    assert ending.startswith("    run_main(main")
    assert ending.count("\n") == 1


def test_ctrl_c_is_no_failure() -> None:
    done = _run("raise KeyboardInterrupt")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_what_a_command_returns_is_its_exit_code() -> None:
    assert _run("return 7").returncode == 7
