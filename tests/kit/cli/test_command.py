"""How every command ends, whatever it ran into."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any

import pytest

from kit.cli.command import call, command_parser
from kit.cli.findings import error
from kit.cli.interpreter import PROJECT_ROOT
from kit.cli.mistakes import FindingsError, WrongUseError

if TYPE_CHECKING:
    from collections.abc import Callable


def _run(body: str, stdout: int | IO[str] = subprocess.PIPE, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose ``main`` is this body."""
    code = f"from kit.cli.command import run_main\ndef main():\n    {body}\nrun_main(main)"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT / "scripts"), **variables}
    return subprocess.run(
        [sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, env=environment
    )


def test_ctrl_c_is_no_failure() -> None:
    done = _run("raise KeyboardInterrupt")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


STOP = """
import os, signal, sys
{before}
from kit.cli.command import run_main
from kit.cli.foreground import SIGNALS
def main():
    try:
        os.kill(os.getpid(), {number:d})
    finally:
        for again in SIGNALS:
            os.kill(os.getpid(), again)
        print("let go")
run_main(main)
"""
CODES = [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)]


def _stopped(number: int, before: str = "") -> tuple[int, str, str]:
    script, environment = STOP.format(before=before, number=number), {"PYTHONPATH": str(PROJECT_ROOT / "scripts")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_ends_a_command_in_order_and_those_after_it_change_nothing(number: signal.Signals, code: int) -> None:
    """While a run was checked, a merge written or a view redrawn it ended the process where it stood, by the signal."""
    assert _stopped(number) == (code, "let go\n", f"{number.name}: stopped\n")


@pytest.mark.parametrize(("number", "code"), CODES)
def test_so_does_one_that_comes_before_the_command_begins(number: signal.Signals, code: int) -> None:
    """As the first process of a container it was not even ended: there a signal that nobody takes is nothing."""
    before = (
        f"from kit.cli.interpreter import use_project_python\nuse_project_python()\nos.kill(os.getpid(), {number:d})"
    )
    assert _stopped(number, before) == (code, "", "")


def test_a_signal_that_is_ignored_at_the_start_stays_so() -> None:
    code, said, talk = _stopped(signal.SIGHUP, "signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    assert (code, said, talk) == (130, "", "")  # by the Ctrl-C after it


def test_what_a_command_returns_is_its_exit_code() -> None:
    assert _run("return 7").returncode == 7


def _traceback_of(said: str) -> str:
    """Read the traceback that a command names, and throw it away."""
    (found,) = re.findall(r"the traceback is in (\S+)", said)
    text = Path(found).read_text(encoding="utf-8")
    Path(found).unlink()
    return text


def test_a_bug_is_one_sentence_and_its_traceback_is_kept() -> None:
    done = _run("raise KeyError('labels')")
    assert done.returncode == 1
    assert done.stderr.startswith("error: KeyError: 'labels'\n  fix: report this as a bug")
    assert "Traceback" not in done.stdout + done.stderr
    assert "KeyError: 'labels'" in _traceback_of(done.stderr)


def test_what_fails_before_the_command_begins_is_a_sentence_too() -> None:
    """A library that is installed and broken, as it is imported."""
    code = (
        "from kit.cli.interpreter import use_project_python\nuse_project_python()\nraise ImportError('libX.so: broken')"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT / "scripts")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ImportError: libX.so: broken\n")
    assert "ImportError" in _traceback_of(done.stderr)


@pytest.mark.parametrize("asked", [{"KIT_DEBUG": "1"}, {"KIT_DEBUG": "yes"}])
def test_a_traceback_is_shown_where_it_is_asked_for(asked: dict[str, str]) -> None:
    done = _run("raise KeyError('labels')", **asked)
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith("error.txt\n")
    _traceback_of(done.stderr)


def _command(run: Callable[[Any], int]) -> Any:
    """A command's module that takes values and ``--json``."""

    def add_arguments(parser: Any) -> None:
        parser.add_argument("config", nargs="?")
        parser.add_argument("values", nargs="*")
        parser.add_argument("--json", action="store_true")

    return SimpleNamespace(__name__="kit.commands.a_command", __doc__="Do it.", add_arguments=add_arguments, run=run)


def test_a_command_has_its_own_words_values_may_stand_behind_options(capsys: pytest.CaptureFixture[str]) -> None:
    def run(options: Any) -> int:
        assert (options.config, options.values) == ("a", ["b", "c"])
        assert options.argv == ["a", "b", "--json", "c"]
        return 3

    assert call(_command(run), ["a", "b", "--json", "c"]) == 3
    with pytest.raises(SystemExit):
        call(_command(run), ["--help"])
    assert capsys.readouterr().out.startswith("usage: kit a-command [-h]")


def test_what_a_command_refuses_is_said_in_one_way_for_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIT_DEBUG", "0")

    def misused(_options: Any) -> int:
        raise WrongUseError("a: is no run; name one")

    assert call(_command(misused), []) == 2
    assert capsys.readouterr().err == "error: a: is no run\n  fix: name one\n"

    def invalid(_options: Any) -> int:
        raise FindingsError([error("config.key", "is wrong", "mend it", "a.yaml:1")])

    assert call(_command(invalid), ["a.yaml"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "  error  a.yaml:1: is wrong\n         fix: mend it\n")
    assert call(_command(invalid), ["a.yaml", "--json"]) == 1
    said = capsys.readouterr()
    assert (json.loads(said.out)["findings"][0]["id"], said.err) == ("config.key", "")
    call(_command(misused), ["--debug"])
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_debug_is_an_option_of_every_command_that_has_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_DEBUG", "0")
    options = command_parser("Do it.", "x.py").parse_args(["--debug"])
    assert os.environ["KIT_DEBUG"] == "1"
    assert vars(options) == {}


def test_a_refusal_of_the_system_is_no_bug() -> None:
    done = _run("open('/nowhere/at/all')")
    assert done.returncode == 1
    assert done.stderr.startswith("error: /nowhere/at/all: does not exist")
    assert "bug" not in done.stderr
    _traceback_of(done.stderr)


def test_what_rust_dies_of_is_a_failure_like_any_other() -> None:
    done = _run("raise type('PanicException', (BaseException,), {})('index out of bounds')")
    assert done.returncode == 1
    assert done.stderr.startswith("error: PanicException: index out of bounds\n")
    _traceback_of(done.stderr)


def test_an_exit_is_left_as_it_is() -> None:
    assert _run("raise SystemExit(77)").returncode == 77


@pytest.mark.parametrize(
    "body",
    [
        "import threading; threading.Thread(target=lambda: {}['labels'], name='sender').start()",
        "type('Sender', (), {'__del__': lambda self: {}['labels']})()",
    ],
    ids=["in a thread", "as something is thrown away"],
)
def test_what_fails_beside_a_command_is_said_and_ends_nothing(body: str) -> None:
    done = _run(f"{body}; return 0")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "failed in the background: KeyError: 'labels'" in done.stderr
    _traceback_of(done.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_results_that_go_to_a_full_disk_are_a_failure() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123 - a device
        done = _run("print('a result')", stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output: the disk is full\n")
    assert "Traceback" not in done.stderr
    _traceback_of(done.stderr)
