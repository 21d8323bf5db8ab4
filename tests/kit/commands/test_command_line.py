"""The one command line: its listing, its commands, the entry points that stay beside it, its completion."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kit.cli.command import parser_of
from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import COMMANDS, GROUPS, module_of

KIT = str(PROJECT_ROOT / "scripts" / "kit")
ROOM = PROJECT_ROOT / "scripts" / "kit" / "commands"
ENTRY_POINTS = {
    "check_gpu.py": "detect", "config_loader.py": "config", "train.py": "train",
    "validate_environment.py": "validate-environment", "validate_training_config.py": "validate-config",
}  # fmt: skip


def _run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT / "scripts"), "COLUMNS": "100"}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, env=given, cwd=cwd)


def test_every_module_is_a_command_and_every_command_a_module() -> None:
    assert sorted(map(module_of, COMMANDS)) == sorted(
        f"kit.commands.{path.stem}" for path in ROOM.glob("*.py") if path.stem != "__init__"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_its_options_and_its_work_and_nothing_around_them(name: str) -> None:
    module = importlib.import_module(module_of(name))
    text = parser_of(module).format_help()
    assert text.startswith(f"usage: kit {name} [-h] [--debug]")
    assert callable(module.run)
    source = (ROOM / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    assert [word for word in ("sys.path", "__main__", "run_main", "use_project_python") if word in source] == []


def test_choosing_a_command_imports_no_heavy_library() -> None:
    code = (
        "import importlib, sys; from kit.commands import COMMANDS, module_of; from kit.cli.command import parser_of\n"
        "for name in COMMANDS: parser_of(importlib.import_module(module_of(name)))\n"
        "print(sorted({'torch', 'transformers', 'peft', 'trl', 'matplotlib'} & set(sys.modules)))"
    )
    assert _run("-c", code).stdout == "[]\n"


@pytest.mark.parametrize("started", [(KIT,), ("-m", "kit")])
def test_the_listing_names_every_command_by_group(started: tuple[str, ...], tmp_path: Path) -> None:
    done = _run(*started, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == _run(*started, "--help").stdout
    for title, commands in GROUPS.items():
        assert f"\n\n{title}\n  {commands[0].name} " in done.stdout
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


def test_what_is_no_command_is_refused_with_the_nearest(tmp_path: Path) -> None:
    done = _run(KIT, "tarin", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: tarin: there is no such command\n  fix: did you mean train?")


def test_debug_may_stand_in_front_of_the_command(tmp_path: Path) -> None:
    done = _run(KIT, "--debug", "report", "no-such-run", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("command", [("--help",), ("detect", "--json"), ("image", "--help")])
def test_what_needs_no_packages_runs_without_them_and_imports_no_others(command: tuple[str, ...]) -> None:
    code = (
        f"import runpy, sys\nsys.argv = [{KIT!r}, *{command!r}]\n"
        f"try:\n    runpy.run_path({KIT!r}, run_name='__main__')\nexcept SystemExit as exc:\n    assert not exc.code\n"
        "print(sorted(name for name in sys.modules if name.startswith('kit.commands.')), file=sys.stderr)"
    )
    done = _run("-S", "-c", code)
    chosen = [] if command[0] == "--help" else [f"kit.commands.{command[0]}"]
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (0, [str(chosen)])


@pytest.mark.parametrize("name", ["__main__", "commands/__init__", "commands/detect", "commands/image"])
def test_what_begins_before_anything_is_installed_is_written_for_python_3_9(name: str) -> None:
    ast.parse((PROJECT_ROOT / f"scripts/kit/{name}.py").read_text(encoding="utf-8"), feature_version=(3, 9))


def test_only_what_documents_and_programs_name_stays_beside_the_command_line() -> None:
    assert {path.name for path in (PROJECT_ROOT / "scripts").glob("*.py")} == set(ENTRY_POINTS)


@pytest.mark.parametrize(("script", "command"), ENTRY_POINTS.items())
def test_an_entry_point_is_its_command(script: str, command: str, tmp_path: Path) -> None:
    path = PROJECT_ROOT / "scripts" / script
    assert _run(str(path), "--help", cwd=tmp_path).stdout == _run(KIT, command, "--help").stdout
    assert path.read_text(encoding="utf-8").count("\n") < 40


SCRIPT = """
import check_gpu, config_loader, validate_environment
from config_loader import load_config, validate_required_fields
from check_gpu import check_gpu, check_mps_backend, detect_platform
from validate_environment import (
    check_imports_h100, check_imports_m4, check_mistral_compatibility, check_training_dependencies
)
"""


def test_the_functions_that_are_promised_to_python_stay_there() -> None:
    done = _run("-c", SCRIPT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "kit.bash"
    file.write_text(_run(KIT, "completion", "bash").stdout, encoding="utf-8")
    return file


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (["tr"], ["train"]),
        (["diff"], ["diff-run"]),
        (["train", "--auto"], ["--auto-fit", "--auto-fit=fast"]),
        (["train", "configs/training_config_m"], ["configs/training_config_m4.yaml"]),
        (["validate-config", "x.yaml", "--js"], ["--json"]),
        (["report", "de"], ["demo"]),
        (["image", "b"], ["build"]),
        (["report", "$(touch"], [r"\$\(touch\ owned\)"]),
        (["detect", "a-file"], []),
    ],
)
def test_a_shell_completes_commands_options_configurations_and_runs(
    typed: list[str], found: list[str], completion: Path, tmp_path: Path
) -> None:
    (tmp_path / "configs").mkdir()
    for name in ("m4", "h100"):
        (tmp_path / f"configs/training_config_{name}.yaml").touch()
    for name in ("demo", "trial", "$(touch owned)"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
        (tmp_path / "outputs" / name / "run.json").touch()
    script = f'source "{completion}"; COMP_WORDS=(kit "$@"); COMP_CWORD=$#; _kit; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *typed], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout.split("\n")[:-1], done.stderr) == (found or [""], "")
    assert not (tmp_path / "owned").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_the_completed_word_is_the_command_line_itself(completion: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f'source "{completion}"; kit --help'], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("kit COMMAND [options]")
