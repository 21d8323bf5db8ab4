"""What becomes of a command whose output nobody reads any more."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kit.cli.interpreter import PROJECT_ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
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
    done = _run_into_a_closed_pipe(f"from kit.cli.command import run_main\nrun_main(lambda: exec({code!r}) or 0)")
    assert done.stderr == b""


_END = "open(sys.argv[1], 'w').close(); return 0"
_BODY = (
    "import os, sys\nfrom kit.cli import console\nfrom kit.cli.command import run_main\nconsole._PATIENCE_S = 0.5\n"
    "def main():\n"
    "    for number in range(400):\n"
    "        print(number, 'x y ' * number, flush=number % 10 == 0)\n"
    "        print(number, 'x y ' * number, file=sys.stderr)\n"
)


def _end_of(tmp_path: Path, *, is_run: bool, streams: tuple[int | None, int | None]) -> tuple[int, bool]:
    """Have a command write a lot to these streams, None for a closed one; return its code, and whether it ended."""
    done_file = tmp_path / "done"
    code = f"{_BODY}    {_END}\nrun_main(main, ignores_broken_pipe={is_run})"
    closed = " ".join(f"{number}>&-" for number, stream in ((1, streams[0]), (2, streams[1])) if stream is None)
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" {closed}', "bash", sys.executable, "-c", code, str(done_file)],
        stdin=subprocess.DEVNULL,
        stdout=streams[0],
        stderr=streams[1],
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT / "scripts")},
        check=False,
        timeout=100,
    )
    return done.returncode, done_file.exists()


def _nobody_reads() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def _terminal_that_is_gone() -> int:
    screen, terminal = pty.openpty()
    os.close(screen)
    return terminal


def _terminal_that_takes_nothing() -> int:
    _, terminal = pty.openpty()  # what it shows is held and never read
    return terminal


def _full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def _closed() -> None:
    return None


_GONE = [_nobody_reads, _terminal_that_is_gone, _terminal_that_takes_nothing, _full_disk, _closed]


@pytest.mark.parametrize("broken", _GONE)
@pytest.mark.parametrize("which", ["stdout", "stderr", "both"])
def test_a_run_goes_on_to_its_end_whatever_becomes_of_its_streams(
    broken: Callable[[], int | None], which: str, tmp_path: Path
) -> None:
    if broken is _full_disk and not os.path.exists("/dev/full"):  # noqa: PTH110 - a device
        pytest.skip("no /dev/full on this system")
    stream, fine = broken(), os.open(os.devnull, os.O_WRONLY)
    streams = (fine if which == "stderr" else stream, fine if which == "stdout" else stream)
    assert _end_of(tmp_path, is_run=True, streams=streams) == (0, True)


@pytest.mark.parametrize("broken", [_nobody_reads, _terminal_that_is_gone, _closed])
def test_talk_that_nobody_can_read_ends_no_command(broken: Callable[[], int | None], tmp_path: Path) -> None:
    assert _end_of(tmp_path, is_run=False, streams=(os.open(os.devnull, os.O_WRONLY), broken())) == (0, True)


def test_results_that_cannot_be_written_are_said_and_fail() -> None:
    for code in ("print(1)", _MANY):
        body = f"from kit.cli.command import run_main\nrun_main(lambda: exec({code!r}) or 0)"
        done = subprocess.run(
            [sys.executable, "-c", body],
            stdout=_full_disk(),
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT / "scripts")},
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.startswith(b"error: standard output: the disk is full\n  fix: ")


def test_a_file_opened_later_never_gets_a_closed_streams_number(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom kit.cli.command import run_main\n"
        "def main():\n"
        f"    with open({str(tmp_path / 'metrics')!r}, 'w') as file:\n"
        "        os.write(2, b'a library complains'); return 0 if file.fileno() > 2 else 3\n"
        "run_main(main)"
    )
    command = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT / "scripts")}
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert (tmp_path / "metrics").read_bytes() == b""
