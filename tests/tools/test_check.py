import subprocess
from pathlib import Path

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from tools import check
from tools.gate.steps import Step, run_steps
from tools.gate.tracked_files import LARGEST_FILE_BYTES, check_tracked_files, findings_in, shell_scripts, tracked_files


@pytest.mark.parametrize(
    "line",
    ["https://{}/simple".format("py" + "pi.org"), "url: files.{}/x".format("python" + "hosted.org")],
)
def test_a_registrys_address_is_found(line: str) -> None:
    (finding,) = findings_in("docs/a.md", f"first\n{line}\n".encode())
    assert (finding.severity, finding.where) == ("error", "docs/a.md:2")
    assert "registry's address" in finding.message


@pytest.mark.parametrize("path", ["/{}/ann/models", "cd /{}/ann/x", "'/{}/ann/x'"])
def test_a_path_of_one_machine_is_found(path: str) -> None:
    assert findings_in("a.py", path.format("home").encode())


@pytest.mark.parametrize(
    "text", ["src/home/ann/x", "~/home/ann/x", "$HOME/x", "/homepage", "/workspace/data", "pip install"]
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert findings_in("a.md", text.encode()) == []


def test_a_file_over_one_megabyte_is_found() -> None:
    (finding,) = findings_in("a.bin", b"\0" * (LARGEST_FILE_BYTES + 1))
    assert finding.id == "files.too_large"


def test_this_project_passes_its_own_guard() -> None:
    assert [finding.message for finding in check_tracked_files(PROJECT_ROOT) if finding.severity == "error"] == []


def test_new_files_count_and_ignored_ones_do_not(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    for name in ("new.py", "ignored.py"):
        (tmp_path / name).touch()
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    assert [path.name for path in tracked_files(tmp_path)] == [".gitignore", "new.py"]


def test_shell_scripts_are_found_by_name_and_by_first_line() -> None:
    assert PROJECT_ROOT / ".ci" / "run" in shell_scripts(PROJECT_ROOT)


def test_the_gate_has_all_its_parts() -> None:
    names = [step.name for step in check.gate(Path("tools"), Path("python"))]
    assert names == [
        "format",
        "lint",
        "locks",
        "tracked files",
        "generated docs",
        "measured docs",
        "shell",
        "dockerfile",
        "rooms",
        "types",
        "fast tests",
    ]


def test_only_the_tests_can_be_left_to_make_test() -> None:
    whole = [step.name for step in check.gate(Path("tools"), Path("python"))]
    assert [step.name for step in check.gate(Path("tools"), Path("python"), with_tests=False)] == whole[:-1]


def test_every_step_runs_although_one_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[str] = []

    def step(name: str, code: int) -> Step:
        def run() -> int:
            ran.append(name)
            return code

        return Step(name, run)

    steps = [step("first", 1), Step("second", skipped_because="no GPU"), step("third", 0)]
    assert run_steps(steps, tmp_path) == 1
    assert ran == ["first", "third"]
    assert capsys.readouterr().err.splitlines()[-1] == "1 passed, 1 failed, 1 skipped"


def test_a_program_that_is_missing_fails_its_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_steps([Step("tool", ["./no-such-tool"])], tmp_path) == 1
    assert "tool could not start" in capsys.readouterr().err
