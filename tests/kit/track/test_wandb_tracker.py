"""wandb gets the curves from a process of its own; whatever happens to it is said, bounded, and left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from fake_wandb import serving
from kit.config.resolve import resolve
from kit.run_directory.receipt import Receipt
from kit.supervise.stop import StopRequest
from kit.track import wandb_process as wandb_sender
from kit.track import wandb_tracker as curves
from kit.track.wandb_process import as_logged
from kit.track.wandb_tracker import WandbTracker
from small_run import CONFIG

if TYPE_CHECKING:
    from pathlib import Path

# A package by wandb's name that does what a test says, and writes down what it was given.
STAND_IN = """
import json, os, pathlib, time
HOW = os.environ["HOW"]
class Settings:
    def __init__(self, **given): self.given = given
class Run:
    def __init__(self, mode, folder):
        self.url, self.place = "https://example.invalid/run", pathlib.Path(folder) / "wandb" / f"{mode}-run-1"
        (self.place / "files").mkdir(parents=True, exist_ok=True)
        self.dir = str(self.place / "files")
    def define_metric(self, *args, **kwargs): pass
    def note(self, what):
        with (self.place / "calls.jsonl").open("a") as file: file.write(json.dumps(what) + "\\n")
    def log(self, line, step=None):
        if HOW == "log raises": raise RuntimeError("log raised")
        if HOW == "log hangs": time.sleep(600)
        self.note(line if step is None else {**line, "step": step})
    def finish(self, exit_code):
        if HOW == "finish hangs": time.sleep(600)
        if HOW == "finish raises": raise TimeoutError("Timed out finishing run.")
        if HOW == "upload refused": print("wandb: use `wandb sync` to send the rest", flush=True)
        self.note({"exit_code": exit_code})
def init(mode, dir, **given):
    if HOW == "dies": os._exit(9)
    if mode == "online" and HOW == "init raises": raise RuntimeError("no way to the server\\nand more")
    if mode == "online" and HOW == "init hangs": time.sleep(600)
    if HOW == "nothing works": raise RuntimeError(f"not {mode}")
    with (pathlib.Path(dir) / "wandb" / "begun.txt").open("a") as file: file.write(f"{given['id']} {given['resume']} ")
    return Run(mode, dir)
"""


class _Sent:
    """A run without training whose curves are sent."""

    def __init__(self, folder: Path, id_: str | None = None, **changes: str) -> None:
        values = {"training.report_to": "wandb", "wandb.project": "p", "wandb.mode": "online", **changes}
        settings = resolve(CONFIG, {"training.output_dir": str(folder), **values}).settings
        self.folder, self.stop = folder, StopRequest()
        self.receipt = Receipt(folder)
        self.curves = WandbTracker(settings)
        self.curves.start(id_)
        self.write({"step": 1, "epoch": 0.5, "loss": 2.0, "grad_norm": None})

    def write(self, *lines: dict[str, Any]) -> None:
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def end(self, state: str = "finished") -> dict[str, Any]:
        self.write({"step": 2, "epoch": 1.0, "loss": 1.0, "grad_norm": 0.5}, {"step": 2, "eval_loss": 1.5})
        self.receipt.finish(state)
        self.curves.end(self.receipt, self.stop)
        written = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        return dict(written.get("wandb", {}))


def _calls(run: Path, mode: str) -> list[dict[str, Any]]:
    lines = (run / f"wandb/{mode}-run-1/calls.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    (tmp_path / "wandb.py").write_text(STAND_IN, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return monkeypatch


EVERYTHING = [
    {"train/global_step": 1, "train/epoch": 0.5, "train/loss": 2.0},
    {"train/global_step": 2, "train/epoch": 1.0, "train/loss": 1.0, "train/grad_norm": 0.5},
    {"train/global_step": 2, "eval/loss": 1.5},
]


@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("interrupted", 1), ("failed", 1)])
def test_every_line_is_handed_on_and_how_it_ended(
    run: Path, stand_in: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: str, code: int
) -> None:
    stand_in.setenv("HOW", "works")
    facts = _Sent(run).end(state)
    assert _calls(run, "online") == [*EVERYTHING, {"exit_code": code}]
    assert (facts["mode"], facts["url"], facts["sync"]) == ("online", "https://example.invalid/run", None)
    assert "wandb: https://example.invalid/run" in capsys.readouterr().err


def test_a_resumed_run_goes_on_with_its_run_and_hands_no_line_on_again(run: Path, stand_in: pytest.MonkeyPatch) -> None:
    """Each session was a run of its own in wandb, with the whole curve again."""
    stand_in.setenv("HOW", "works")
    offline = {"wandb.mode": "offline"}
    _Sent(run, "0123abcd", **offline).end("interrupted")
    _Sent(run, "0123abcd", **offline).end()  # three lines more
    new = [{**line, "step": number} for number, line in enumerate(EVERYTHING, len(EVERYTHING))]
    assert _calls(run, "offline") == [*EVERYTHING, {"exit_code": 1}, *new, {"exit_code": 0}]
    assert (run / "wandb/begun.txt").read_text() == "0123abcd allow 0123abcd allow "
    (run / "metrics.jsonl").unlink()
    _Sent(run, "ffff0000", **offline).end()  # begun anew
    assert _calls(run, "offline")[-4:] == [*EVERYTHING, {"exit_code": 0}]


def test_signals_are_for_the_training_alone(run: Path, stand_in: pytest.MonkeyPatch) -> None:
    """A batch system sends them to every process of a job: the last lines were lost."""
    stand_in.setenv("HOW", "works")
    sent = _Sent(run)
    _wait_for((run / "wandb/online-run-1/calls.jsonl").exists)
    assert sent.curves.process is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        sent.curves.process.send_signal(number)
    sent.end("interrupted")
    assert _calls(run, "online") == [*EVERYTHING, {"exit_code": 1}]


@pytest.mark.parametrize(
    ("how", "problem"), [("init raises", "no way to the server"), ("init hangs", "no answer in 1 s")]
)
def test_what_cannot_be_sent_is_recorded_here_with_the_command_that_sends_it(
    run: Path, stand_in: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str, problem: str
) -> None:
    stand_in.setenv("HOW", how)
    stand_in.setattr(curves, "BEGIN_S", 1.0)
    facts = _Sent(run).end()
    place = f"{run}/wandb/offline-run-1"
    assert facts == {
        "mode": "offline", "url": None, "folder": place, "problem": problem, "sync": f"wandb sync {place}"
    }  # fmt: skip
    assert _calls(run, "offline") == [*EVERYTHING, {"exit_code": 0}]
    said = capsys.readouterr().err
    assert f"wandb: {problem}; the run continues; curves are recorded in {place}" in said
    assert f"wandb sync {place}" in said.splitlines()[-1]


@pytest.mark.parametrize("how", ["finish raises", "upload refused", "log raises"])
def test_what_was_not_sent_to_its_end_can_be_sent_again(run: Path, stand_in: pytest.MonkeyPatch, how: str) -> None:
    stand_in.setenv("HOW", how)
    facts = _Sent(run).end()
    assert (facts["mode"], facts["sync"]) == ("online", f"wandb sync {run}/wandb/online-run-1")


@pytest.mark.parametrize(("how", "state"), [("finish hangs", "finished"), ("log hangs", "interrupted")])
def test_a_wandb_that_hangs_is_waited_for_no_longer_than_stated(
    run: Path, stand_in: pytest.MonkeyPatch, how: str, state: str
) -> None:
    stand_in.setenv("HOW", how)
    stand_in.setattr(curves, "END_S" if state == "finished" else "STOPPED_S", 0.5)
    sent = _Sent(run)
    _wait_for((run / "wandb/online-run-1").exists)
    process = sent.curves.process
    assert process is not None
    facts = sent.end(state)
    assert facts["problem"] == "the upload had not finished 0.5 s after the run ended; stopped"
    assert facts["sync"] == f"wandb sync {run}/wandb/online-run-1"
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("how", ["nothing works", "dies"])
def test_a_run_without_any_wandb_keeps_its_metrics(
    run: Path, stand_in: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    stand_in.setenv("HOW", how)
    facts = _Sent(run).end()
    assert (facts["folder"], facts["sync"]) == (None, None)
    assert "metrics.jsonl has the curves" in capsys.readouterr().err


def test_a_process_that_cannot_be_started_is_a_warning(run: Path, stand_in: pytest.MonkeyPatch) -> None:
    stand_in.setattr(sys, "executable", "/nowhere/python")
    facts = _Sent(run).end()
    assert "did not start" in facts["problem"]


def test_a_signal_ends_the_waiting(run: Path, stand_in: pytest.MonkeyPatch) -> None:
    stand_in.setenv("HOW", "finish hangs")
    sent = _Sent(run)
    _wait_for((run / "wandb/online-run-1").exists)
    with sent.stop.listening():
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            facts = sent.end()
        finally:
            signal.signal(signal.SIGALRM, before)
    assert facts["sync"]


def test_the_sender_ends_with_a_run_that_was_killed(run: Path, stand_in: pytest.MonkeyPatch) -> None:
    stand_in.setenv("HOW", "works")
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        sent = _Sent(run)
        assert sent.curves.process is not None
        os.write(tell, str(sent.curves.process.pid).encode())
        signal.pause()
    sender = psutil.Process(int(os.read(ready, 20)))
    _wait_for((run / "wandb/online-run-1/calls.jsonl").exists)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    _wait_for(lambda: not sender.is_running() or sender.status() == psutil.STATUS_ZOMBIE)
    assert _calls(run, "online") == [EVERYTHING[0], {"exit_code": 1}]


@pytest.mark.parametrize(
    ("changes", "variable"),
    [({"training.report_to": "none"}, ""), ({"wandb.mode": "disabled"}, ""), ({}, "disabled")],
)
def test_nothing_is_started_for_a_run_that_reports_to_nobody(
    run: Path, stand_in: pytest.MonkeyPatch, changes: dict[str, str], variable: str
) -> None:
    if variable:
        stand_in.setenv("WANDB_MODE", variable)
    assert _Sent(run, **changes).end() == {}
    assert not (run / "wandb").exists()


def test_the_environment_turns_wandb_down(run: Path, stand_in: pytest.MonkeyPatch) -> None:
    stand_in.setenv("HOW", "works")
    stand_in.setenv("WANDB_MODE", "offline")
    assert _Sent(run).end()["mode"] == "offline"


def test_no_secret_gets_into_the_run_directory(run: Path, stand_in: pytest.MonkeyPatch) -> None:
    stand_in.setenv("HOW", "works")
    stand_in.setenv("WANDB_API_KEY", "marker-that-must-not-appear")
    _Sent(run).end()
    assert not [path for path in run.rglob("*") if path.is_file() and b"marker-that" in path.read_bytes()]


def test_what_is_not_a_number_is_left_out() -> None:
    assert as_logged({"step": 3, "loss": None, "grad_norm": 1.0}) == {"train/global_step": 3, "train/grad_norm": 1.0}


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    pytest.importorskip("wandb", reason="needs the libraries: make setup")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


@pytest.mark.slow
def test_the_real_wandb_sends_the_curves(run: Path, real: pytest.MonkeyPatch) -> None:
    with serving("answers") as (address, server):
        real.setenv("WANDB_BASE_URL", address)
        facts = _Sent(run).end()
    assert (facts["mode"], facts["problem"], facts["sync"]) == ("online", "", None)
    sent = [{key: value for key, value in line.items() if not key.startswith("_")} for line in server.history]
    assert sent == EVERYTHING


# A machine's own name may be two letters, which are in any file: the process that sends is given one that is not.
MACHINE = "the-name-of-this-machine"


@pytest.mark.slow
def test_what_is_sent_names_no_machine_no_repository_and_no_package(
    run: Path, tmp_path: Path, real: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import socket\nsocket.gethostname = lambda: {MACHINE!r}\n")
    path = wandb_sender.python_path()
    real.setattr(wandb_sender, "python_path", lambda: f"{tmp_path}{os.pathsep}{path}")
    _Sent(run, **{"wandb.mode": "offline"}).end()
    (folder,) = run.glob("wandb/offline-run-*")
    held = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".log")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, check=False).stdout.strip()
    named = [MACHINE.encode(), sys.executable.encode(), commit, b"requirements.txt", b"wandb-metadata.json"]
    assert [name for name in named if name and name in held] == []


def test_the_real_wandb_goes_on_where_its_server_says(run: Path, real: pytest.MonkeyPatch) -> None:
    with serving("answers") as (address, server):
        real.setenv("WANDB_BASE_URL", address)
        _Sent(run, "0123abcd").end("interrupted")
        again = _Sent(run, "0123abcd")
        (run / "wandb/handed_on.json").unlink()  # the server knows better
        facts = again.end()
    assert facts["sync"] is None
    assert [line["_step"] for line in server.history] == list(range(6))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hangs", "fails", "refuses"])
def test_a_server_that_goes_away_in_mid_run_leaves_a_record_to_send(
    run: Path, real: pytest.MonkeyPatch, how: str
) -> None:
    real.setattr(curves, "SEND_S", 2.0)
    with serving("answers") as (address, server):
        real.setenv("WANDB_BASE_URL", address)
        sent = _Sent(run)

        def has_begun() -> bool:
            sent.curves.listen()
            return bool(sent.curves.facts["url"])

        _wait_for(has_begun)
        server.how = how
        facts = sent.end()
    assert facts["mode"] == "online"
    assert facts["sync"] == f"wandb sync {facts['folder']}"
    assert list(run.glob("wandb/run-*/*.wandb"))


def _wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
