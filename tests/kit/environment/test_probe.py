"""However the child ends, the parent reports a finding: never a crash, never a secret."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from packaging.utils import canonicalize_name

from kit.environment import probe as environment_probe
from kit.environment.checks import check_device_work
from kit.environment.facts import DeviceProbe, Environment, Stage

if TYPE_CHECKING:
    from pathlib import Path

STARTED = 'import sys, os, time; sys.stderr.write(\'noise\\nstage: {"name": "train step", "outcome": "started"}\\n\'); '
MARKER = "this-is-a-secret"


def run(code: str, timeout_seconds: float = 60, seen: list[Stage] | None = None) -> DeviceProbe:
    on_stage = None if seen is None else seen.append
    return environment_probe.work_device(
        timeout_seconds=timeout_seconds, command=(sys.executable, "-c", code), on_stage=on_stage
    )


def only_error(probe: DeviceProbe) -> str:
    machine = environment_probe.machine_probe.probe()
    (finding,) = check_device_work(Environment(machine, probe=probe))
    assert finding.severity == "error"
    assert finding.fix
    return finding.message


def test_a_child_killed_by_a_signal_is_reported_with_its_stage() -> None:
    probe = run(STARTED + "sys.stderr.flush(); os.kill(os.getpid(), 11)")
    assert (probe.outcome, probe.stopped_in) == ("died", "train step")
    assert "died in the stage 'train step': signal SIGSEGV" in only_error(probe)


def test_a_hanging_child_is_ended_and_reported_with_its_stage() -> None:
    probe = run(STARTED + "sys.stderr.flush(); time.sleep(600)", timeout_seconds=3)
    assert probe.outcome == "timed_out"
    assert "hung in the stage 'train step': ended after 3 s" in only_error(probe)


def test_what_a_hanging_child_started_is_ended_with_it() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    assert run(code, timeout_seconds=2).outcome == "timed_out"


def test_an_exit_code_is_reported_with_the_last_words() -> None:
    probe = run("import sys; print('no such library', file=sys.stderr); sys.exit(3)")
    assert probe.detail == "exit code 3; last output: no such library"


@pytest.mark.parametrize("printed", ["hello", "", "[]", '{"stages": [{"nonsense": 1}]}', '{"stages": 3}'])
def test_garbage_on_stdout_is_reported(printed: str) -> None:
    probe = run(f"print({printed!r})")
    assert probe.outcome == "garbled"
    assert "gave no readable answer" in only_error(probe)


def test_stages_are_shown_as_they_happen() -> None:
    seen: list[Stage] = []
    run(STARTED, seen=seen)
    assert seen == [Stage("train step", "started")]


def test_a_stage_line_that_is_garbled_is_passed_over() -> None:
    assert run("import sys; print('stage: {broken', file=sys.stderr)").stages == ()


def test_the_child_gets_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, MARKER)
    probe = run("import os, sys; print(dict(os.environ), file=sys.stderr); sys.exit(1)")
    assert "last output" in probe.detail
    assert MARKER not in probe.detail
    assert MARKER not in str(environment_probe.child_environment())


def test_the_lock_belongs_to_system_and_stack(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    for name in ("locks/reference-linux-x86_64.txt", "locks/current-linux-x86_64.txt", "requirements-m4.txt"):
        (tmp_path / name).write_text("# made by a tool\ntorch==9.9.9 \\\n    --hash=sha256:00\n", encoding="utf-8")
    names = [
        lock.name if lock else None
        for lock in (
            environment_probe.read_lock("Linux", "reference", tmp_path),
            environment_probe.read_lock("Linux", "current", tmp_path),
            environment_probe.read_lock("Darwin", "current", tmp_path),
            environment_probe.read_lock("Linux", "none", tmp_path),
            environment_probe.read_lock("Linux", "current", tmp_path / "elsewhere"),
        )
    ]
    assert names == [
        "locks/reference-linux-x86_64.txt",
        "locks/current-linux-x86_64.txt",
        "requirements-m4.txt",
        None,
        None,
    ]
    lock = environment_probe.read_lock("Linux", "current", tmp_path)
    assert lock is not None
    assert lock.versions == {"torch": "9.9.9"}


def test_installed_packages_are_named_canonically() -> None:
    installed = environment_probe.installed_versions()
    assert "pytest" in installed
    assert all(name == canonicalize_name(name) for name in installed)


def test_without_work_no_child_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_probe, "work_device", lambda *_: pytest.fail("a child was started"))
    assert environment_probe.probe(work=False).probe == DeviceProbe()
