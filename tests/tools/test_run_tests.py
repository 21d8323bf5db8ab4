import subprocess

import pytest

from tools import run_tests
from tools.gate import at_once
from tools.setup.rules import Host

LINUX = Host("Linux", "x86_64", (3, 11), glibc=(2, 36))
MAC = Host("Darwin", "arm64", (3, 11), macos=(15, 1))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would be run; a run with ``-k nothing`` finds no test."""
    ran: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command[1:])
        return subprocess.CompletedProcess(command, 5 if "nothing" in command else 0)

    monkeypatch.setattr(subprocess, "run", run)
    return ran


def test_both_tiers_run_with_the_reference_environment_made_between_them(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_tests, "probe_host", lambda: LINUX)
    monkeypatch.setattr(at_once, "workers", lambda: 1)
    assert run_tests.main([]) == 0
    assert [command[-1] for command in commands] == ["not stacks", "reference", "stacks"]


@pytest.mark.parametrize(
    ("more", "cores", "expected"),
    [
        ([], 2, ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]),
        (["-k", "config"], 2, ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]),
        ([], 1, []),
        (["-n", "1"], 2, []),
        (["-n0"], 2, []),
        (["-s"], 2, []),
        (["--pdb"], 2, []),
    ],
)
def test_tests_are_spread_over_the_cores_unless_somebody_looks_into_them(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, more: list[str], cores: int, expected: list[str]
) -> None:
    monkeypatch.setattr(at_once, "workers", lambda: cores)
    run_tests.pytest_step("tests", "not stacks", more).run()
    assert commands == [["-m", "pytest", "-m", "not stacks", *expected, *more]]


@pytest.mark.parametrize(("free_gb", "cores", "expected"), [(3, 8, 1), (9, 8, 2), (100, 2, 2), (100, 64, 8)])
def test_each_worker_has_a_core_and_the_memory_of_a_small_training(
    monkeypatch: pytest.MonkeyPatch, free_gb: int, cores: int, expected: int
) -> None:
    monkeypatch.setattr(at_once, "usable_memory", lambda: (None, free_gb * 10**9))
    monkeypatch.setattr(at_once, "usable_cores", lambda: cores)
    assert at_once.workers() == expected


def test_a_mac_skips_the_second_stack_and_says_why(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_tests, "probe_host", lambda: MAC)
    monkeypatch.setattr(at_once, "workers", lambda: 1)
    assert run_tests.main([]) == 0
    assert [command[-1] for command in commands] == ["not stacks"]
    assert "skipped: the reference stack cannot run on a Mac" in capsys.readouterr().err


@pytest.mark.parametrize("selection", [["-k", "nothing"], ["nothing"]])
@pytest.mark.usefixtures("commands")
def test_a_selection_may_leave_a_tier_empty(selection: list[str]) -> None:
    assert run_tests.pytest_step("tests", "stacks", selection).run() == 0


def test_a_tier_that_is_empty_by_itself_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 5))
    assert run_tests.pytest_step("tests", "stacks", []).run() == 5
