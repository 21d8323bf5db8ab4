"""What is measured runs apart, in a process that has all this one has."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from kit.bench import child
from kit.bench.child import OUT_OF_MEMORY, Bench
from kit.bench.variants import CEILING
from kit.interpreter import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_packages_that_are_only_on_the_path_are_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}

    def run(command: list[str], *, env: dict[str, str], **_options: Any) -> subprocess.CompletedProcess[str]:
        seen.update(env)
        return subprocess.CompletedProcess(command, 1, "", "the end")

    monkeypatch.setattr(child.subprocess, "run", run)
    monkeypatch.setenv("PYTHONPATH", "/carried")
    bench = Bench("small", "cpu", tmp_path / "base")
    assert bench.child(CEILING) == {"variant": CEILING, "workload": "", "failed": "the end"}
    assert seen["PYTHONPATH"] == f"{PROJECT_ROOT}/scripts:/carried"
    assert bench.broken


@pytest.mark.parametrize(
    ("stderr", "reason", "broken"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory\n", OUT_OF_MEMORY, False),
        ("Traceback\nValueError: no such thing\n", "ValueError: no such thing", True),
        ("", "exit code 3", True),
    ],
)
def test_memory_that_runs_out_is_a_result_and_anything_else_a_fault(
    stderr: str, reason: str, broken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.CompletedProcess([], 3, "", stderr)
    monkeypatch.setattr(child.subprocess, "run", lambda *_args, **_options: done)
    bench = Bench("small", "cpu", tmp_path / "base")
    assert bench.child(CEILING)["failed"] == reason
    assert bench.broken == broken
