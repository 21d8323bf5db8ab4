"""The workflows, read from their files: small rights, real commands, nothing a stranger could write into a shell."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kit.cli.interpreter import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

FILES = sorted((PROJECT_ROOT / ".github" / "workflows").glob("*"))
ALL = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
ACTIONS = {"actions/checkout@v4", "actions/upload-artifact@v4", "actions/download-artifact@v4"}
TARGETS = re.findall(r"^([a-z][\w-]*):", (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def read(path: Path) -> dict[Any, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def steps_of(job: dict[str, Any]) -> list[dict[str, Any]]:
    return list(job["steps"])


def scripts_of(path: Path) -> list[str]:
    return [step["run"] for job in read(path)["jobs"].values() for step in steps_of(job) if "run" in step]


def test_both_workflows_are_there() -> None:
    assert [path.name for path in FILES] == ["ci.yml", "locks.yml"]


@ALL
def test_no_job_has_more_rights_than_it_names(path: Path) -> None:
    content = read(path)
    granted = [content["permissions"], *(job.get("permissions", {}) for job in content["jobs"].values())]
    assert all(isinstance(one, dict) for one in granted)  # never write-all
    assert "write" not in content["permissions"].values()
    for job in content["jobs"].values():
        assert content["permissions"] or "permissions" in job


@ALL
def test_a_job_that_may_write_runs_nothing_that_was_just_downloaded(path: Path) -> None:
    for job in read(path)["jobs"].values():
        if "write" in job.get("permissions", {}).values():
            text = "\n".join(step.get("run", "") for step in steps_of(job))
            assert not re.search(r"\b(?:make|pip|uv|pytest|npm|curl|wget|bash|\.ci/run)\b", text)
            assert set(re.findall(r"-m tools\.\w+[^\n]*", text)) <= {"-m tools.lock --check"}


@ALL
def test_the_token_stays_in_the_one_step_that_needs_it(path: Path) -> None:
    for job in read(path)["jobs"].values():
        may_write = "write" in job.get("permissions", {}).values()
        for step in steps_of(job):
            if step.get("uses", "").startswith("actions/checkout@") and not may_write:
                assert step["with"]["persist-credentials"] is False
            assert "GH_TOKEN" not in step.get("env", {}) or may_write
        assert "env" not in job


@ALL
def test_nothing_from_outside_is_pasted_into_a_shell(path: Path) -> None:
    assert [text for text in scripts_of(path) if "${{" in text] == []
    used = set(re.findall(r"\$\{\{\s*(.*?)\s*\}\}", path.read_text(encoding="utf-8")))
    assert used <= {"github.ref", "github.token"}
    assert "pull_request_target" not in path.read_text(encoding="utf-8")


@ALL
def test_only_known_actions_are_used(path: Path) -> None:
    used = {step["uses"] for job in read(path)["jobs"].values() for step in steps_of(job) if "uses" in step}
    assert used <= ACTIONS


@ALL
def test_every_job_ends_by_itself(path: Path) -> None:
    assert [name for name, job in read(path)["jobs"].items() if not 0 < job["timeout-minutes"] <= 90] == []


@ALL
def test_every_command_is_there(path: Path) -> None:
    text = "\n".join(scripts_of(path))
    assert set(re.findall(r"\bmake ([a-z][\w-]*)", text)) <= set(TARGETS)
    named = re.findall(r"(?:scripts/\w+\.py|\.ci/\w+)", text)
    assert [name for name in named if not (PROJECT_ROOT / name).is_file()] == []


@ALL
def test_every_script_is_valid_shell(path: Path) -> None:
    for text in scripts_of(path):
        assert subprocess.run(["bash", "-n"], input=text, text=True, check=False, capture_output=True).returncode == 0


def test_the_weekly_one_comes_weekly_and_by_hand() -> None:
    # YAML 1.1 reads the key `on` as true.
    triggers = read(PROJECT_ROOT / ".github/workflows/locks.yml")[True]
    assert set(triggers) == {"schedule", "workflow_dispatch"}
    (schedule,) = triggers["schedule"]
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", schedule["cron"])


def test_everything_that_a_refresh_may_change_is_proposed() -> None:
    """`git commit --all` in that job can only take what was copied: the locks, each under its own name."""
    from kit.stacks.locks import LOCKS

    targets = {lock.target for lock in LOCKS}
    assert targets == {str(path.relative_to(PROJECT_ROOT)) for path in (PROJECT_ROOT / "locks").glob("*.txt")} | {
        "requirements-m4.txt"
    }
