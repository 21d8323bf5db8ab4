"""What becomes of a command whose output nobody reads any more."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kit.interpreter import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

_MANY = "import sys\nfor number in range(100_000): print(number, flush=number % 100 == 0)\n"


def _run_into_a_closed_pipe(code: str) -> subprocess.CompletedProcess[bytes]:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT / "scripts")}
        return subprocess.run(
            [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, env=environment, check=False
        )
    finally:
        os.close(writer)


@pytest.mark.parametrize("code", [_MANY, "print(1)"], ids=["while it writes", "as it ends"])
def test_a_command_nobody_reads_any_more_ends_without_a_traceback(code: str) -> None:
    done = _run_into_a_closed_pipe(f"from kit.console import leave_quietly; leave_quietly()\n{code}")
    assert done.stderr == b""


def test_another_failure_still_shows_where() -> None:
    done = _run_into_a_closed_pipe("from kit.console import leave_quietly; leave_quietly()\nraise ValueError('mine')")
    assert done.returncode == 1
    assert b"ValueError: mine" in done.stderr


def test_a_run_goes_on_to_its_end_although_nobody_reads_any_more(tmp_path: Path) -> None:
    done_file = tmp_path / "done"
    code = f"from kit.console import outlive_readers; outlive_readers()\n{_MANY}open({str(done_file)!r}, 'w').close()"
    done = _run_into_a_closed_pipe(code)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done_file.exists()
