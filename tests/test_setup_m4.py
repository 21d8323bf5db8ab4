"""setup_m4.sh as it is, on a stand-in Mac."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.stacks.locks import M4, packages
from stand_in_mac import BASH, GIB, Mac

pytestmark = pytest.mark.skipif(BASH is None, reason="bash is not installed")


@pytest.fixture
def mac(tmp_path: Path) -> Mac:
    return Mac(tmp_path)


@pytest.fixture
def ready(mac: Mac) -> Mac:
    assert mac.run().returncode == 0
    mac.log.unlink()
    return mac


def test_the_first_run_checks_installs_and_tries_the_gpu(mac: Mac) -> None:
    done = mac.run()
    assert (done.returncode, mac.did()) == (0, ["venv", "pip", "validate"]), done.stderr
    assert mac.stamp.exists()
    assert "Ready. Next: make validate CONFIG=configs/training_config_m4.yaml, then make train-m4" in done.stderr


def test_the_gpu_is_judged_by_the_same_probe_as_everywhere(mac: Mac) -> None:
    mac.run()
    assert mac.log.read_text().splitlines()[-1] == "validate scripts/validate_environment.py --require m4"


def test_the_mac_is_judged_by_detection(mac: Mac) -> None:
    assert "Apple silicon with MPS: Apple M4, 10 GPU cores, 32 GB unified memory, macOS 15.1" in mac.run().stdout


def test_memory_and_time_are_said_as_the_configuration_says_them(mac: Mac) -> None:
    last = (PROJECT_ROOT / "configs/training_config_m4.yaml").read_text().split("\n# Expected time")[1]
    said = "\n".join(line.removeprefix("# ").removeprefix("#") for line in last.splitlines())
    assert f"Expected time{said}" in mac.run().stderr


@pytest.mark.parametrize(
    ("facts", "message", "fix"),
    [
        ({"system": "Linux", "machine": "x86_64"}, "this is Linux", "make setup"),
        ({"machine": "x86_64", "arm64": ""}, "Intel processor (x86_64)", "an M1 or later"),
        (
            {"machine": "x86_64", "translated": "1", "arm64": ""},
            "runs under Rosetta",
            "arch -arm64 /bin/bash setup_m4.sh",
        ),
        ({"machine": "x86_64", "translated": ""}, "runs under Rosetta", "arch -arm64 /bin/bash setup_m4.sh"),
        ({"macos": "13.7.2"}, "macOS 13.7.2 is too old", "Software Update"),
        ({"macos": ""}, "version of macOS cannot be read", "sw_vers"),
        ({"id": "0"}, "runs as root", "without sudo"),
        ({"python": "3 9 arm64 True"}, "python3.11 is 3.9", "brew install python@3.11"),
        ({"python": "2 7 arm64 True"}, "python3.11 is 2.7", "brew install python@3.11"),
        ({"python": "3 12 x86_64 True"}, "python3.11 is built for x86_64", "brew install python@3.11"),
        ({"python": "3 12 arm64 False"}, "python3.11 has no ensurepip", "brew install python@3.11"),
        ({"python": ""}, "python3.11 does not start", "brew install python@3.11"),
        ({"memory": str(16 * GIB)}, "cannot train Mistral-7B as it is", "fix the errors above"),
    ],
)
def test_a_wrong_mac_is_refused_before_anything_is_made(
    tmp_path: Path, facts: dict[str, str], message: str, fix: str
) -> None:
    mac = Mac(tmp_path, **facts)
    done = mac.run()
    assert (done.returncode, mac.did(), mac.environment.exists()) == (1, [], False), done.stderr
    error, way_out = done.stderr.splitlines()[-2:]
    assert error.startswith("error: ")
    assert message in error
    assert way_out.startswith("  fix: ")
    assert fix in way_out


def test_no_python_at_all_names_the_way_to_one(mac: Mac) -> None:
    (mac.bin / "python3.11").unlink()
    done = mac.run()
    assert done.returncode == 1
    assert "no Python 3.10 or newer, built for arm64, was found\n" in done.stderr


def test_apples_window_that_offers_the_command_line_tools_is_not_opened(mac: Mac) -> None:
    """Without those tools /usr/bin/python3 is no Python; the one in its place here would write down its start."""
    script, window = mac.root / "setup_m4.sh", mac.bin / "python3"
    script.write_text(script.read_text().replace("/usr/bin/python3", str(window)))
    (mac.bin / "python3.11").rename(window)
    window.write_text(f'#!/bin/sh\ntouch "{mac.folder}/opened"\n')
    assert mac.run("--dry-run").returncode == 1
    assert not (mac.folder / "opened").exists()
    (mac.bin / "xcode-select").write_text("#!/bin/sh\n")
    mac.run("--dry-run")
    assert (mac.folder / "opened").exists()


@pytest.mark.parametrize("minor", ["10", "12", "14"])
def test_every_python_from_3_10_on_can_start_it(tmp_path: Path, minor: str) -> None:
    assert Mac(tmp_path, python=f"3 {minor} arm64 True").run("--dry-run").returncode == 0


def test_a_python_can_be_named(mac: Mac) -> None:
    (mac.bin / "python3.11").rename(mac.bin / "my-python")
    assert mac.run("--dry-run", PYTHON="my-python").returncode == 0
    assert "no such program" in mac.run("--dry-run", PYTHON="not-there").stderr


@pytest.mark.parametrize(("gib", "warned"), [(24, True), (32, False)])
def test_less_than_32_gb_is_warned_of(tmp_path: Path, gib: int, *, warned: bool) -> None:
    done = Mac(tmp_path, memory=str(gib * GIB)).run("--dry-run")
    assert done.returncode == 0
    assert ("the M4 configuration is for 32 GB" in done.stdout) is warned


def test_the_second_run_installs_nothing_and_tries_the_gpu_again(ready: Mac) -> None:
    done = ready.run()
    assert (done.returncode, ready.did()) == (0, ["validate"])
    assert ".venv-m4 is up to date" in done.stderr


@pytest.mark.parametrize("folder", ["..", "/", "scripts"])
def test_it_runs_from_any_folder(mac: Mac, folder: str) -> None:
    assert mac.run(cwd=mac.root / folder).returncode == 0
    assert mac.stamp.exists()


def test_it_runs_by_a_relative_path(mac: Mac) -> None:
    command = [str(BASH), f"{mac.root.name}/setup_m4.sh", "--dry-run"]
    # With CDPATH set, cd prints where it went.
    variables = mac.variables(CDPATH=".:..")
    assert subprocess.run(command, cwd=mac.folder, env=variables, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_is_finished_by_the_next(mac: Mac, number: int, code: int) -> None:
    variables = mac.variables(UV_STUB="wait")
    with subprocess.Popen(
        mac.command(), cwd=mac.root, env=variables, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        waiting, deadline = Path(f"{mac.log}.waiting"), time.monotonic() + 30
        while not waiting.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, number)
        assert abs(process.wait(timeout=30)) in (code, code - 128)
    assert not mac.stamp.exists()
    mac.log.unlink()
    assert (mac.run().returncode, mac.did()) == (0, ["pip", "validate"])


def test_a_network_that_comes_back_is_waited_for(mac: Mac) -> None:
    done = mac.run(UV_STUB="once")
    assert (done.returncode, mac.did()[-1]) == (0, "validate")
    assert "trying again in 2 s" in done.stderr


def test_a_network_that_stays_away_is_named(mac: Mac) -> None:
    done = mac.run(UV_STUB="offline")
    assert (done.returncode, mac.stamp.exists()) == (2, False)
    assert [line for line in done.stderr.splitlines() if "trying again in" in line][-1].endswith("giving up")
    assert "error: the package registry cannot be reached" in done.stderr
    assert "validate" not in mac.did()


def test_a_gpu_that_does_not_work_fails_the_run(mac: Mac) -> None:
    done = mac.run(VALIDATE="1")
    assert done.returncode == 1
    assert "the environment is installed, but this Mac cannot train with it yet" in done.stderr


@pytest.mark.parametrize("option", ["--check", "--dry-run"])
def test_looking_changes_nothing_before_set_up(mac: Mac, option: str) -> None:
    before = mac.snapshot()
    done = mac.run(option)
    assert (done.returncode, mac.did(), mac.snapshot() == before) == (0, [], True), done.stderr
    assert "would install" in done.stderr


def test_a_check_tries_the_gpu_of_what_is_there_and_changes_nothing(ready: Mac) -> None:
    before = ready.snapshot()
    assert (ready.run("--check").returncode, ready.did()) == (0, ["validate"])
    assert ready.run("--check", VALIDATE="1").returncode == 1
    assert ready.snapshot() == before


def test_a_dry_run_changes_nothing_after_set_up(ready: Mac) -> None:
    before = ready.snapshot()
    assert (ready.run("--dry-run").returncode, ready.did()) == (0, [])
    assert ready.snapshot() == before


def test_uninstall_removes_the_environment_and_nothing_else(ready: Mac) -> None:
    kept = {path for path in ready.snapshot() if ready.environment not in path.parents}
    assert ready.run("--uninstall", cwd=ready.folder).returncode == 0
    assert not ready.environment.exists()
    assert set(ready.snapshot()) == kept


def test_uninstall_needs_neither_a_mac_nor_an_environment(tmp_path: Path) -> None:
    done = Mac(tmp_path, system="Linux").run("--uninstall")
    assert done.returncode == 0
    assert "no .venv-m4" in done.stderr


def test_uninstall_removes_a_link_and_not_what_it_points_to(mac: Mac) -> None:
    elsewhere = mac.folder / "elsewhere"
    elsewhere.mkdir()
    mac.environment.symlink_to(elsewhere)
    assert mac.run("--uninstall").returncode == 0
    assert (elsewhere.exists(), mac.environment.is_symlink()) == (True, False)


def test_uninstall_can_be_tried_first(ready: Mac) -> None:
    done = ready.run("--uninstall", "--dry-run")
    assert (done.returncode, ready.stamp.exists()) == (0, True)
    assert f"would remove {ready.environment}" in done.stderr


def test_an_unknown_option_is_wrong_use(mac: Mac) -> None:
    done = mac.run("--instal")
    assert (done.returncode, mac.did()) == (2, [])
    assert "--instal: no such option" in done.stderr


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_a_result_and_needs_no_mac(tmp_path: Path, option: str) -> None:
    done = Mac(tmp_path, system="Linux").run(option)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"  {name} " in done.stdout for name in ("--check", "--dry-run", "--uninstall", "--help"))


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colour_only_where_somebody_looks(mac: Mac, variables: dict[str, str], *, coloured: bool) -> None:
    done = mac.run("--dry-run", **variables)
    assert ("\033[" in done.stderr, "\033[" in done.stdout) == (coloured, coloured)


def test_it_never_asks_for_another_users_rights() -> None:
    lines = (PROJECT_ROOT / "setup_m4.sh").read_text().splitlines()
    assert [line for line in lines if line.lstrip().startswith(("sudo", "doas", "su "))] == []


def test_flash_attention_is_not_in_the_macs_lock() -> None:
    assert "flash-attn" not in packages((PROJECT_ROOT / M4.target).read_text())
