"""What a run was made from is named: code, stack, lock, image, data; and what is not known is said to be unknown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.data.dataset import EncodedFile
from kit.data.encoding import IGNORE_INDEX, EncodedRow
from kit.data.token_rows import TokenRows
from kit.machine import facts as machines
from kit.run_directory import provenance
from kit.run_directory.provenance import (
    describe_before,
    describe_code,
    describe_data,
    describe_image,
    describe_lock,
    describe_stack,
    scripts_tree,
)
from kit.stacks.locks import CURRENT, REFERENCE, STAMP, digest
from kit.stacks.stack import stack_of

MACHINE = machines.read(PROJECT_ROOT / "tests" / "fixtures" / "machines" / "h100_80gb.json")
STACK = stack_of({"torch": "2.10.0", "transformers": "5.23.0"})


def test_the_configuration_the_machine_and_the_versions_are_in_it() -> None:
    resolved = resolve(PROJECT_ROOT / "configs" / "training_config_demo.yaml", {"training.seed": 5})
    facts = json.loads(json.dumps(describe_before(["a", "b=c"], resolved.settings, resolved.origins, MACHINE, STACK)))
    assert facts["argv"] == ["a", "b=c"]
    assert facts["seed"] == facts["config"]["training"]["seed"] == 5
    assert facts["origins"]["lora.r"].startswith(str(PROJECT_ROOT / "configs"))
    assert facts["machine"]["system"] == "Linux"
    assert facts["packages"]["pytest"] == pytest.__version__
    assert set(facts["locks"]) == {path.name for path in (PROJECT_ROOT / "locks").glob("*.txt")}
    assert all(len(digest) == 64 for digest in facts["locks"].values())


def test_a_distribution_without_a_name_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, version: str | None) -> None:
            self.metadata, self.version = {"Name": None}, version

        def locate_file(self, _: str) -> Path:
            return Path("site-packages")

    monkeypatch.setattr(provenance.metadata, "distributions", lambda: [Broken("1"), Broken(None), Broken(None)])
    assert describe_stack(STACK)["packages"].keys() == {"?"}


def test_of_two_copies_of_a_package_the_one_that_is_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Copy:
        def __init__(self, version: str) -> None:
            self.metadata, self.version = {"Name": "platformdirs"}, version

        def locate_file(self, _: str) -> Path:
            return Path("site-packages")

    monkeypatch.setattr(provenance.metadata, "distributions", lambda: [Copy("4.14.7"), Copy("4.4.0")])
    assert describe_stack(STACK)["packages"] == {"platformdirs": "4.14.7"}


def test_the_copies_that_setuptools_brings_along_are_not_what_is_installed() -> None:
    pytest.importorskip("setuptools", reason="the current stack's")
    code = "import json, setuptools\nfrom kit.run_directory.provenance import describe_stack\n"
    code += (
        "from kit.stacks.stack import installed_stack\nprint(json.dumps(describe_stack(installed_stack())['packages']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT / "scripts")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout) == describe_stack(STACK)["packages"]
    assert "setuptools" in json.loads(done.stdout)


def test_data_is_named_with_its_hash_and_counts() -> None:
    row, cut = EncodedRow([1, 2, 3], [IGNORE_INDEX, 2, 3], 1, 3), EncodedRow([1, 2, 3], [IGNORE_INDEX, 2, 3], 2, 9)
    file = EncodedFile(Path("data/rows.jsonl"), TokenRows.of((row, cut)), (), "ab" * 32)
    (described,) = describe_data([file], max_seq_length=3)
    histogram = described.pop("length_histogram")
    assert described == {
        "path": "data/rows.jsonl",
        "sha256": "ab" * 32,
        "rows": 2,
        "tokens": 6,
        "trainable_tokens": 4,
        "truncated_rows": 1,
    }
    assert sum(histogram["counts"]) == 2
    assert histogram["edges"][0] <= 3
    assert histogram["edges"][-1] > 9


def _git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_code_is_named_by_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PROJECT_ROOT", tmp_path)
    _git(tmp_path, "init")
    file = tmp_path / "naïve.py"
    file.write_text("1", encoding="utf-8")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-m", "first")
    code = describe_code()
    assert len(code["git_revision"]) == 40
    assert code["git_dirty"] is False
    file.write_text("2", encoding="utf-8")
    dirty = describe_code()
    difference = dirty.pop("git_diff_sha256")
    assert dirty == {**code, "git_dirty": True}
    file.write_text("3", encoding="utf-8")
    assert describe_code()["git_diff_sha256"] not in {None, difference}


def test_code_outside_git_is_said_to_be_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PROJECT_ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_code() == {"git_revision": None, "git_dirty": None}


def test_a_machine_without_git_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert describe_code() == {"git_revision": None, "git_dirty": None}


@pytest.mark.parametrize(
    "failure", [subprocess.TimeoutExpired("git", 10), subprocess.CalledProcessError(128, "git"), PermissionError(13)]
)
def test_a_status_git_does_not_give_is_unknown_and_not_clean(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def run(command: list[str], **_kwargs: Any) -> subprocess.CompletedProcess[bytes]:
        if "status" in command:
            raise failure
        return subprocess.CompletedProcess(command, 0, b"abc\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert describe_code() == {"git_revision": "abc", "git_dirty": None}


def test_names_git_prints_in_any_bytes_are_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 0, b" M caf\xe9\n")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_kwargs: done)
    assert describe_code()["git_dirty"] is True


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two small locks, and an environment that has no mark yet."""
    (tmp_path / "locks").mkdir()
    (tmp_path / CURRENT.target).write_text("# of current\ntorch==2.10.0 \\\n    --hash=sha256:0\njinja2==3.1.6 \\\n")
    (tmp_path / REFERENCE.target).write_text("torch==2.1.0 \\\n")
    monkeypatch.setattr(provenance, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(provenance.platform, "system", lambda: "Linux")
    for name in ("KIT_STACK", "KIT_REVISION", "KIT_IMAGE_ID", "KIT_LOCK_SHA256", "KIT_SOURCE_SHA256"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".venv").mkdir()
    return tmp_path


def test_an_environment_as_its_lock_says_deviates_in_nothing(project: Path) -> None:
    text = (project / CURRENT.target).read_text()
    (project / ".venv" / STAMP).write_text(digest(text))
    assert describe_lock("current", {"torch": "2.10.0", "Jinja2": "3.1.6"}) == {
        "name": CURRENT.target, "sha256": digest(text), "installed_from_sha256": digest(text), "deviations": [],
    }  # fmt: skip


@pytest.mark.usefixtures("project")
def test_every_package_that_is_not_as_locked_is_named() -> None:
    described = describe_lock("current", {"torch": "2.10.0+cpu", "wheel": "0.45.0"})
    assert described is not None
    assert described["installed_from_sha256"] is None
    assert described["deviations"] == [
        {"name": "jinja2", "locked": "3.1.6", "installed": None},
        {"name": "torch", "locked": "2.10.0", "installed": "2.10.0+cpu"},
        {"name": "wheel", "locked": None, "installed": "0.45.0"},
    ]


def test_the_lock_is_the_one_the_environment_was_made_from(project: Path) -> None:
    text = (project / REFERENCE.target).read_text()
    (project / ".venv" / STAMP).write_text(digest(text))
    described = describe_lock("current", {"torch": "2.1.0"})
    assert described is not None
    assert (described["name"], described["deviations"]) == (REFERENCE.target, [])


def test_a_lock_that_changed_since_it_was_installed_has_two_hashes(project: Path) -> None:
    (project / ".venv" / STAMP).write_text("ab" * 32)
    described = describe_lock("current", {})
    assert described is not None
    assert (described["name"], described["installed_from_sha256"]) == (CURRENT.target, "ab" * 32)
    assert described["sha256"] != "ab" * 32


def test_without_a_lock_nothing_is_said_about_it(project: Path) -> None:
    (project / CURRENT.target).unlink()
    assert describe_lock("current", {"torch": "2.10.0"}) is None


@pytest.mark.usefixtures("project")
def test_outside_the_image_there_is_none_whatever_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_IMAGE_ID", "sha256:beef")
    assert describe_image() is None


@pytest.mark.usefixtures("project")
def test_the_image_is_named_by_the_engine_and_by_what_it_was_built_from(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"STACK": "current", "REVISION": "abc", "IMAGE_ID": "sha256:beef", "SOURCE_SHA256": "cd" * 32}
    for name, value in {**variables, "LOCK_SHA256": "ef" * 32}.items():
        monkeypatch.setenv(f"KIT_{name}", value)
    assert describe_image() == {"id": "sha256:beef", "revision": "abc", "source_sha256": "cd" * 32}
    described = describe_lock("current", {})
    assert described is not None
    assert described["installed_from_sha256"] == "ef" * 32


@pytest.mark.usefixtures("project")
def test_an_image_built_by_hand_does_not_know_what_it_was_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STACK", "REVISION", "SOURCE_SHA256", "IMAGE_ID"):
        monkeypatch.setenv(f"KIT_{name}", "" if name == "IMAGE_ID" else "unknown")
    assert describe_image() == {"id": None, "revision": None, "source_sha256": None}


def test_the_scripts_of_a_revision_have_a_name_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PROJECT_ROOT", tmp_path)
    _git(tmp_path, "init")
    (tmp_path / "scripts").mkdir()
    for number, name in enumerate(("scripts/a.py", "README.md", "scripts/b.py")):
        (tmp_path / name).write_text("1", encoding="utf-8")
        _git(tmp_path, "add", ".")
        _git(tmp_path, "commit", "-m", f"{number}")
    first, second, third = (scripts_tree(f"HEAD~{back}") for back in (2, 1, 0))
    assert first == second != third
    assert scripts_tree("0" * 40) is None
