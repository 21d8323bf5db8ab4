"""Writes that fail, by a preloaded library: what ``make torture ARGS="--only writes"`` does, in short."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from small_run import read_receipt, run_training
from torture import write_errors
from torture.write_errors import compile_library, why_not

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(tmp_path_factory.mktemp("library"))


@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("write", "os.write(file, b'x')"),
        ("write", "os.writev(file, [b'x'])"),
        ("write", "os.pwrite(file, b'x', 0)"),
        ("write", "os.sendfile(file, os.open('/etc/hostname', os.O_RDONLY), 0, 1)"),
        ("fsync", "os.fsync(file)"),
        ("truncate", "os.ftruncate(file, 9)"),
        ("close", "os.close(file)"),
        ("rename", "os.rename(path, path + '.new')"),
        ("mkdir", "os.mkdir(path + '.folder')"),
        ("open", "os.open(path, os.O_WRONLY)"),
    ],
)
def test_the_call_that_is_meant_fails_and_another_file_is_spared(
    library: Path, tmp_path: Path, call: str, body: str
) -> None:
    program = (
        "import os, sys\n"
        "for path in sys.argv[1:]:\n"
        "    file = os.open(path, os.O_WRONLY | os.O_CREAT)\n"
        "    os.environ['FAILING_WRITES_ERRNO'] = '122'\n"
        f"    try: {body}\n"
        "    except OSError as exc: print(exc.errno)\n"
        "    else: print('done')\n"
        "    os.environ.pop('FAILING_WRITES_ERRNO')\n"
    )
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "FAILING_WRITES_PATH": str(tmp_path / "meant"),
        "FAILING_WRITES_CALLS": call,
    }
    command = [sys.executable, "-S", "-c", program, str(tmp_path / "meant"), str(tmp_path / "spared")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EDQUOT), "done"]


@pytest.mark.parametrize(("system", "compiler", "said"), [("darwin", "cc", "Linux"), ("linux", None, "compiler")])
def test_where_no_write_can_be_made_to_fail_the_reason_is_said(
    monkeypatch: pytest.MonkeyPatch, system: str, compiler: str | None, said: str
) -> None:
    monkeypatch.setattr(write_errors.sys, "platform", system)
    monkeypatch.setattr(write_errors.shutil, "which", lambda _: compiler)
    assert said in why_not()


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_save_that_the_disk_refuses_is_one_sentence(
    tiny_base: Path, tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The library of the weights has an error type of its own for it, which does not come from OSError."""
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("FAILING_WRITES_PATH", ".checkpoint-2.partial/")
    monkeypatch.setenv("FAILING_WRITES_ERRNO", str(number))
    monkeypatch.setenv("FAILING_WRITES_CALLS", "write")
    done = run_training(tiny_base, tmp_path / "run", python=sys.executable, training__save_steps=1)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "bug" not in done.stderr
    assert f"the traceback is in {tmp_path}/run/error.txt" in done.stderr
    assert "step 1 is saved" in done.stderr
    receipt = read_receipt(tmp_path / "run")
    assert (receipt["state"], receipt["error_file"]) == ("failed", "error.txt")
    assert "Traceback" in (tmp_path / "run/error.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_failing_writes_cost_nothing_that_was_saved() -> None:
    command = [sys.executable, "-m", "torture", "--only", "writes", "--writes", "12", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT / "tests")}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=False)
    told: dict[str, Any] = json.loads(done.stdout)["parts"]["writes"]
    assert told["faults"] == []
    assert sum(told["failures"].values()) == 12
    assert told["finished"] >= 3
