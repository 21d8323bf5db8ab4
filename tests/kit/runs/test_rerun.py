"""A rerun has the run's own configuration, a folder nobody else wrote to, and hears the signals meant for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.run_directory.history import Run, read_run
from kit.runs import rerun
from kit.runs.rerun import claim, mark, write_config
from written_run import RESOLVED, write_run


def _run(folder: Path, **facts: Any) -> Run:
    return read_run(write_run(folder, done=1, sha256="ab" * 32, **facts))


def test_the_configuration_is_the_runs_but_for_where_and_under_what_name_it_writes(tmp_path: Path) -> None:
    run = _run(tmp_path / "run")
    resolved = resolve(write_config(tmp_path / "again", run, {"data.train_file": "moved.jsonl"}))
    settings = resolved.settings
    assert settings.run_directory == tmp_path / "again"
    assert (settings.training.run_name, settings.data.train_file) == ("demo-reproduced", "moved.jsonl")
    training = replace(settings.training, output_dir=None, run_name="demo")
    data = replace(settings.data, train_file=RESOLVED.settings.data.train_file)
    assert replace(settings, training=training, data=data) == RESOLVED.settings


def test_it_reports_to_nobody_and_takes_the_commit_the_run_had(tmp_path: Path) -> None:
    config = RESOLVED.settings.as_mapping()
    config["training"] |= {"report_to": "wandb", "run_name": "x" * 100}
    config["model"] |= {"model_name_or_path": "owner/name", "revision": "main"}
    run = _run(tmp_path / "run", config=config, base_model={"revision_resolved": "c0ffee"})
    settings = resolve(write_config(tmp_path / "again", run, {})).settings
    assert (settings.training.report_to, settings.model.revision) == ("none", "c0ffee")
    assert len(settings.training.run_name) == 100
    elsewhere = resolve(write_config(tmp_path / "more", run, {"model.model_name_or_path": "models/here"})).settings
    assert elsewhere.model.model_name_or_path == "models/here"


def test_an_empty_folder_is_begun_in_and_a_stopped_rerun_is_gone_on_with(tmp_path: Path) -> None:
    run, folder = _run(tmp_path / "run"), tmp_path / "again"
    assert claim(folder, run, overwrite=False) == (False, None)
    mark(folder, run, verdict=None)
    assert claim(folder, run, overwrite=False) == (False, None)
    write_run(folder, done=1, state="interrupted")
    assert claim(folder, run, overwrite=False) == (True, None)
    assert claim(folder, run, overwrite=True) == (False, None)
    write_run(folder, done=1, state="finished")
    assert claim(folder, run, overwrite=False) == (False, None)


def test_a_folder_with_anything_else_in_it_is_left_alone(tmp_path: Path) -> None:
    run, other = _run(tmp_path / "run"), _run(tmp_path / "other")
    assert claim(other.folder, run, overwrite=True)[1] is not None
    assert claim(run.folder, run, overwrite=True)[1] is not None
    folder = tmp_path / "again"
    mark(folder, replace(other, receipt={**other.receipt, "sha256": "cd" * 32}))
    _, refusal = claim(folder, run, overwrite=True)
    assert refusal is not None
    assert (refusal.where, "--out NAME" in refusal.fix) == (str(folder), True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    assert claim(tmp_path / "notes", run, overwrite=True)[1] is not None


def test_the_rerun_of_what_the_run_was_before_is_replaced_only_when_told(tmp_path: Path) -> None:
    run, folder = _run(tmp_path / "run"), tmp_path / "again"
    mark(folder, run)
    anew = replace(run, receipt={**run.receipt, "sha256": "cd" * 32})
    _, refusal = claim(folder, anew, overwrite=False)
    assert refusal is not None
    assert "--overwrite" in refusal.fix
    assert claim(folder, anew, overwrite=True) == (False, None)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose command line is what a test writes there."""
    (tmp_path / "scripts").mkdir()
    monkeypatch.setattr(rerun, "PROJECT_ROOT", tmp_path)
    return tmp_path / "scripts" / "kit"


def test_it_computes_with_the_runs_number_of_threads(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.write_text(
        "import os, sys\nfrom pathlib import Path\n"
        "told = [*sys.argv[3:], os.environ['OMP_NUM_THREADS'], os.environ.get('MKL_NUM_THREADS', 'unset')]\n"
        "Path(sys.argv[2]).write_text(' '.join(told))\nraise SystemExit(3)"
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    config = tmp_path / "config.yaml"
    for resume, threads, told in ((True, 5, "--resume auto 5 unset"), (False, None, "--overwrite 1 7")):
        assert rerun.train_again(config, resume=resume, threads=threads) == 3
        assert config.read_text() == told


@pytest.mark.parametrize(("sent", "heard"), [("SIGINT", "2"), ("SIGTERM", "15"), ("SIGHUP", "15"), ("SIGUSR1", "10")])
@pytest.mark.skipif(sys.platform != "linux", reason="SIGUSR1 has this number on Linux")
def test_a_signal_reaches_the_run_once_and_its_exit_code_comes_back(tmp_path: Path, sent: str, heard: str) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "kit").write_text(
        "import signal, sys, time\nfrom pathlib import Path\nheard = []\n"
        "for number in (2, 15, 10):\n    signal.signal(number, lambda number, frame: heard.append(number))\n"
        "Path(sys.argv[2]).touch()\nwhile not heard:\n    time.sleep(0.01)\n"
        "time.sleep(0.2)\nprint(*heard)\nraise SystemExit(128 + heard[0])"
    )
    script = (
        f"import sys; sys.path.insert(0, {str(PROJECT_ROOT / 'scripts')!r})\nfrom pathlib import Path\n"
        f"from kit.runs import rerun\nrerun.PROJECT_ROOT = Path({str(tmp_path)!r})\n"
        f"raise SystemExit(rerun.train_again(Path({str(tmp_path / 'started')!r}), resume=False, threads=1))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        while not (tmp_path / "started").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, getattr(signal, sent))  # as a terminal does: the whole group
        assert process.wait(timeout=30) == 128 + int(heard)
        assert process.stderr is not None
        assert process.stderr.read().split() == [heard]
