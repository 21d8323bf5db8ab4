import ast
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.stacks.locks import CURRENT, STAMP, UV, digest
from tools import setup_environment
from tools.setup import rules as setup_rules
from tools.setup import uv as uv_tool
from tools.setup.rules import Host

LINUX = Host("Linux", "x86_64", (3, 11), glibc=(2, 36), is_debian_like=True)
# What runs before anything is installed.
STDLIB_ONLY = (
    "tools/setup_environment", "tools/setup/rules", "tools/setup/uv", "scripts/kit/stacks/locks",
    *(f"scripts/kit/cli/{name}" for name in ("command", "console", "findings", "interpreter", "logins", "redaction")),
    *(f"scripts/kit/cli/{name}" for name in ("mistakes", "refusals", "traceback_file")),
)  # fmt: skip


@pytest.mark.parametrize("name", STDLIB_ONLY)
def test_what_runs_first_needs_no_more_than_python_3_9(name: str) -> None:
    tree = ast.parse((PROJECT_ROOT / f"{name}.py").read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = {
        module.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for module in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    assert imported - {"kit", "tools"} <= sys.stdlib_module_names


# The command runs in a copy of the project, with a stub in the place of the pinned uv.

STUB_UV = """#!/bin/sh
echo "$@" >>"{log}"
case "$1" in
venv)
  for folder; do :; done
  rm -rf "$folder" && mkdir -p "$folder/bin" && ln -s "{python}" "$folder/bin/python" ;;
pip)
  case "$STUB" in
  fail) echo "error: dns error" >&2; exit 2 ;;
  once)  # a failure is asked for a second time, for its reason
    case "$*" in *--dry-run*) touch "{log}.failed"; echo "error: dns error" >&2; exit 2 ;; esac
    [ -e "{log}.failed" ] || exit 2 ;;
  wait) touch "{log}.waiting"; exec sleep 60 ;;
  esac ;;
esac
"""


class Project:
    """A copy of what set-up needs, with a uv that only notes what it was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "uv.log"
        self.environment = root / ".venv-dev"
        self.stamp = self.environment / STAMP
        for name in ("scripts", "tools"):
            shutil.copytree(PROJECT_ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(PROJECT_ROOT / "locks", root / "locks")
        shutil.copy(PROJECT_ROOT / "requirements-m4.txt", root)
        uv = root / ".cache" / "uv" / "bin" / "uv"
        uv.parent.mkdir(parents=True)
        uv.write_text(STUB_UV.format(log=self.log, python=uv_tool.base_python()))
        uv.chmod(0o755)
        (root / ".cache" / "uv" / STAMP).write_text(digest((root / UV.target).read_text()))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tools.setup_environment", "--dev", "--skip-disk-check", *arguments]

    def run(self, *arguments: str, stub: str = "") -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "STUB": stub}
        return subprocess.run(
            self.command(*arguments), cwd=self.root, env=env, capture_output=True, text=True, check=False
        )

    def asked(self) -> list[str]:
        return [line.split()[0] for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "a project with spaces")


def test_the_first_run_makes_and_fills_the_environment(project: Project) -> None:
    done = project.run()
    assert (done.returncode, project.asked()) == (0, ["venv", "pip"])
    assert "--require-hashes" in project.log.read_text()


def test_progress_says_what_and_how_much(project: Project) -> None:
    assert "packages (0.2 GB) → .venv-dev" in project.run().stderr


def test_results_stay_off_stdout(project: Project) -> None:
    assert project.run().stdout == ""


def test_the_second_run_does_nothing(project: Project) -> None:
    project.run()
    project.log.unlink()
    done = project.run()
    assert (done.returncode, project.asked()) == (0, [])
    assert ".venv-dev is up to date" in done.stderr


def test_a_changed_lock_is_installed_into_the_same_environment(project: Project) -> None:
    project.run()
    project.log.unlink()
    lock = project.root / "locks" / "dev.txt"
    lock.write_text(lock.read_text() + "# changed\n")
    assert (project.run().returncode, project.asked()) == (0, ["pip"])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it is for the current stack on Linux")
def test_what_was_added_stays_until_it_is_taken_out(project: Project) -> None:
    """`make check` and `make demo` call the set-up without a word of it."""
    command = [sys.executable, "-m", "tools.setup_environment", "--skip-disk-check"]

    def installed(*arguments: str) -> list[str]:
        project.log.unlink(missing_ok=True)
        assert (
            subprocess.run([*command, *arguments], cwd=project.root, capture_output=True, check=False).returncode == 0
        )
        asked = project.log.read_text().split() if project.log.exists() else []
        return [Path(word).name for word in asked if word.endswith(".txt")]

    own, added = "current-linux-x86_64.txt", "attention-linux-x86_64.txt"
    assert installed() == [own]
    assert installed("--with", "attention") == [own, added]
    assert installed() == []
    lock = project.root / "locks" / added
    lock.write_text(lock.read_text() + "# changed\n")
    assert installed() == [own, added]
    assert installed("--without", "attention") == [own]
    assert installed() == []


def test_what_is_for_another_stack_is_not_added(project: Project) -> None:
    done = project.run("--with", "attention")
    assert done.returncode == 2
    assert "is for the current stack on Linux" in done.stderr


def test_a_half_finished_environment_is_finished(project: Project) -> None:
    project.run()
    project.stamp.unlink()
    project.log.unlink()
    assert (project.run().returncode, project.asked()) == (0, ["pip"])


def test_a_broken_interpreter_is_replaced(project: Project) -> None:
    project.run()
    project.log.unlink()
    python = project.environment / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python")
    assert (project.run().returncode, project.asked()) == (0, ["venv", "pip"])


def test_a_failed_installation_leaves_no_stamp_and_says_why(project: Project) -> None:
    done = project.run("--no-retry", stub="fail")
    assert (done.returncode, project.stamp.exists()) == (2, False)
    assert "error: the package registry cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_network_that_comes_back_is_waited_for(project: Project) -> None:
    done = project.run(stub="once")
    assert (done.returncode, project.stamp.exists()) == (0, True)
    assert "the package registry cannot be reached; trying again in 2 s" in done.stderr


def test_each_retry_waits_longer() -> None:
    waited: list[float] = []

    def work() -> None:
        raise uv_tool.SetupError("offline", "", is_temporary=True)

    with pytest.raises(uv_tool.SetupError):
        setup_environment.with_retries(work, (2, 8), waited.append)
    assert waited == [2, 8]


def test_what_time_does_not_mend_is_not_tried_again() -> None:
    waited: list[float] = []

    def work() -> None:
        raise uv_tool.diagnose("no space left on device", "")

    with pytest.raises(uv_tool.SetupError):
        setup_environment.with_retries(work, (2, 8), waited.append)
    assert waited == []


def test_a_dry_run_says_what_would_be_done_and_does_nothing(project: Project) -> None:
    before = sorted(path for path in project.root.rglob("*") if "__pycache__" not in path.parts)
    done = project.run("--dry-run")
    assert done.returncode == 0
    assert "would install" in done.stderr
    assert "dev.txt → .venv-dev" in done.stderr
    assert sorted(path for path in project.root.rglob("*") if "__pycache__" not in path.parts) == before


def test_the_macs_own_environment_is_refused_elsewhere() -> None:
    refusal = setup_rules.refuse_platform(LINUX, "m4")
    assert refusal is not None
    assert "this is Linux on x86_64" in refusal.message


def test_the_macs_own_environment_comes_from_its_lock() -> None:
    assert setup_rules.lock_for(LINUX, "m4").target == "requirements-m4.txt"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_leaves_no_stamp_and_no_child(project: Project, number: int, code: int) -> None:
    env = {**os.environ, "STUB": "wait"}
    command = project.command()
    with subprocess.Popen(
        command, cwd=project.root, env=env, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        waiting = Path(f"{project.log}.waiting")
        deadline = time.monotonic() + 30
        while not waiting.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, number)
        assert process.wait(timeout=30) == code
    assert not project.stamp.exists()


def test_a_missing_lock_is_named(project: Project) -> None:
    (project.root / "locks" / "dev.txt").unlink()
    done = project.run()
    assert done.returncode == 2
    assert "dev.txt: the lock cannot be read" in done.stderr


def test_too_little_disk_stops_before_anything_is_made(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_rules.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))
    lock = project.root / "locks" / "dev.txt"
    plan = setup_environment.Plan("dev", project.root, tmp_path / "env", lock, needed_bytes=10**9)
    assert setup_environment.set_up(plan, LINUX, skip_disk_check=False) == 2
    assert not plan.folder.exists()


def test_a_file_system_without_locks_does_not_stop_a_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_handle: object, _how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    setup_environment.wait_for_other(tmp_path).close()
    assert "do not run two set-ups of this project at once" in capsys.readouterr().err


def test_no_python_3_11_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_python(*_: Any) -> None:
        raise uv_tool.SetupError("the package registry cannot be reached", "")

    monkeypatch.setattr(setup_environment, "run_uv", no_python)
    monkeypatch.setattr(setup_environment.sys, "version_info", (3, 13, 0))
    plan = setup_environment.Plan("dev", tmp_path, tmp_path / "env", tmp_path / "lock", 0)
    with pytest.raises(uv_tool.SetupError) as caught:
        setup_environment.create_interpreter(plan, Path("uv"))
    assert "no Python 3.11 was found" in caught.value.message
    assert "apt-get install python3.11" in caught.value.fix


@pytest.mark.parametrize(("system", "asked"), [("Darwin", "cpython-3.11-macos-aarch64"), ("Linux", "3.11")])
def test_a_python_3_11_for_this_processor_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, asked: str
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(setup_environment, "run_uv", lambda _, command, *__: commands.append(command))
    monkeypatch.setattr(setup_environment.sys, "version_info", (3, 13, 0))
    monkeypatch.setattr(setup_environment.platform, "system", lambda: system)
    plan = setup_environment.Plan("current", tmp_path, tmp_path / "env", tmp_path / "lock", 0)
    setup_environment.create_interpreter(plan, Path("uv"))
    assert commands[0][-2:] == [asked, str(tmp_path / "env")]


@pytest.mark.slow  # fetches uv and one small package
def test_a_real_lock_is_installed_by_the_pinned_uv(project: Project) -> None:
    shutil.rmtree(project.root / ".cache")
    pinned = (PROJECT_ROOT / CURRENT.target).read_text().split("\niniconfig==")[1].split("    # via")[0]
    (project.root / "tiny.txt").write_text(f"iniconfig=={pinned}")
    done = project.run("--lock", str(project.root / "tiny.txt"), "--folder", str(project.root / "env"))
    assert done.returncode == 0, done.stderr
    subprocess.run([project.root / "env" / "bin" / "python", "-c", "import iniconfig"], check=True)


@pytest.mark.slow  # fetches uv
def test_a_package_with_another_hash_is_not_installed(project: Project) -> None:
    shutil.rmtree(project.root / ".cache")
    (project.root / "tiny.txt").write_text(f"iniconfig==2.3.1 --hash=sha256:{'0' * 64}\n")
    done = project.run("--lock", str(project.root / "tiny.txt"), "--folder", str(project.root / "env"))
    assert done.returncode == 2
    assert not (project.root / "env" / STAMP).exists()
