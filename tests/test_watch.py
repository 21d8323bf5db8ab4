"""`make watch`: follows a run to its end, in a terminal and in a pipe, and leaves it alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from rich.live import Live

from kit.cli.command import call
from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import watch
from kit.run_directory.process import describe_process, this_process
from terminal import Terminal
from written_run import write_run

if TYPE_CHECKING:
    from pathlib import Path

    from kit.runs.terminal_view import RunProgress


def change(folder: Path, **facts: object) -> None:
    path = folder / "run.json"
    aside = folder / "aside"
    aside.write_text(json.dumps({**json.loads(path.read_text()), **facts}))
    aside.replace(path)


@pytest.fixture
def running(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", done=40, state="training", process=this_process(), evaluations=[(20, 1.25)])


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LOOK_EVERY_S", "_JUDGE_EVERY_S", "_PLAIN_EVERY_S"):
        monkeypatch.setattr(watch, name, 0.01)


def test_once_shows_where_it_stands(running: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(running, steps=80)
    assert call(watch, [str(running), "--once"]) == 0
    shown = capsys.readouterr().out
    assert "run (training)" in shown
    assert "step     40/80" in shown
    assert "validation 1.2500 at step 20" in shown
    assert "time left 20 s" in shown


def test_it_follows_new_steps_and_ends_with_the_run(
    running: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def one_step_more() -> None:
        with (running / "metrics.jsonl").open("a") as file:
            file.write('{"step": 41, "loss": 0.125, "tokens": 41000, "seconds": 20.5}\n')

    def shown(course: RunProgress) -> str:
        line = plain_line(course)
        next(afterwards, lambda: None)()
        return line

    afterwards = iter([one_step_more, lambda: change(running, state="finished")])
    plain_line = watch.plain_line
    monkeypatch.setattr(watch, "plain_line", shown)
    assert call(watch, [str(running)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step     40/40")
    assert any(line.startswith("step     41/40") for line in lines)
    assert lines[-2] == "run finished at step 41 of 40: training loss 0.1250, validation loss 1.2500"
    assert lines[-1] == f"next: make report RUN={running}"


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_a_run_that_did_not_finish_is_an_exit_code_of_1(
    running: Path, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(running, state=state, error="OSError: the disk is gone", error_file="error.txt")
    assert call(watch, [str(running)]) == 1
    why = f"it failed: OSError: the disk is gone; its traceback: {running}/error.txt\n"
    assert (why in capsys.readouterr().out) is (state == "failed")


def test_a_run_whose_process_is_gone_is_not_waited_for(running: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(running, process={**this_process(), "created": 5.0, "start_ticks": 5})
    assert call(watch, [str(running)]) == 1
    assert "died: its process was killed" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGXCPU, signal.SIGUSR2])
def test_a_run_that_could_not_say_its_end_is_said_to_have_died_with_the_way_on(
    running: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    change(running, process=describe_process(child.pid))
    child.send_signal(number)
    child.wait()
    for once, code in ((True, 0), (False, 1)):
        assert call(watch, [str(running), *(["--once"] if once else [])]) == code
        shown = capsys.readouterr().out
        assert "its process was killed" in shown
        assert "--resume auto" in shown


def test_a_run_before_its_first_step_can_be_watched(running: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (running / "metrics.jsonl").unlink()
    assert call(watch, [str(running), "--once"]) == 0
    assert "step      0/40" in capsys.readouterr().out


def test_ctrl_c_leaves_and_touches_nothing(
    running: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    before = {path.name: path.read_bytes() for path in running.iterdir()}
    monkeypatch.setattr(time, "sleep", interrupt)
    assert call(watch, [str(running)]) == 130
    assert "the run continues" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in running.iterdir()} == before


def test_a_run_that_is_not_there_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(watch, ["no-such-run"]) == 2
    assert "no-such-run: no such run directory" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_in_a_terminal_it_is_drawn_live_and_ctrl_c_ends_it(running: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, str(PROJECT_ROOT / "scripts/kit"), "watch", str(running)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "30", "PYTHONIOENCODING": "utf-8"}
    child = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment, start_new_session=True)
    os.close(theirs)
    seen = b""
    while seen.count(b"Ctrl-C detaches") < 3:  # drawn again and again, also while nothing changes
        seen += os.read(ours, 65536)
    child.send_signal(signal.SIGINT)
    try:
        while os.read(ours, 65536):
            pass
    except OSError:
        pass  # Linux says so when the other end is closed
    assert child.wait(timeout=20) == 130
    os.close(ours)
    shown = seen.decode()
    assert "step 40 of 40" in shown
    assert shown.count("█") > 3
    assert "#" not in shown


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_whatever_ends_the_view_the_cursor_is_shown_again_and_it_is_said(
    running: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    refresh = Live.refresh

    def drawn_and_ended(self: Live) -> None:
        refresh(self)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(Live, "refresh", drawn_and_ended)  # the first frame, before the view counts as begun
    with Terminal(lambda: call(watch, [str(running)])) as terminal:
        assert terminal.exit_code() == code
    assert "\x1b[?25h" in terminal.text
    assert re.search(r"detached; the run continues|SIG\w+: stopped", terminal.text.splitlines()[-1])
