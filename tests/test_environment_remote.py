import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.utils import canonicalize_name

from kit.cli.interpreter import PROJECT_ROOT
from kit.stacks.locks import REFERENCE, packages
from tools.setup.rules import probe_host, refuse_platform
from tools.setup.uv import diagnose

FILE = PROJECT_ROOT / "environment-remote.yml"
TEXT = FILE.read_text(encoding="utf-8")
DEPENDENCIES = yaml.safe_load(TEXT)["dependencies"]
PIP_SECTION: list[str] = DEPENDENCIES[-1]["pip"]
LOCKED = packages((PROJECT_ROOT / REFERENCE.target).read_text(encoding="utf-8"))
# The environment, and its packages once more in pip's cache.
NEEDED_BYTES = 15 * 10**9
# What has to import for a run; each was broken once by versions that a resolver had accepted.
IMPORTS = "import bitsandbytes, peft, torch, transformers, trl, wandb; print(torch.version.cuda)"


def test_conda_brings_python_and_pip_and_nothing_that_could_shadow_the_lock() -> None:
    assert DEPENDENCIES[:-1] == ["python=3.11", "pip"]


def test_the_lock_comes_first_and_the_pins_are_what_was_asked_for() -> None:
    asked = ["torch==2.1.0", "transformers==4.36.0", "peft==0.7.0", "trl==0.7.4", "bitsandbytes==0.41.0"]
    assert [f"-r {REFERENCE.target}", *asked] == PIP_SECTION


@pytest.mark.parametrize("pin", PIP_SECTION[1:])
def test_the_lock_holds_each_pin(pin: str) -> None:
    name, version = pin.split("==")
    assert LOCKED[name] == version


def test_flash_attention_is_a_step_of_its_own_for_this_torch() -> None:
    (command,) = re.findall(r"^#   (pip install .*flash-attn==.*)$", TEXT, re.MULTILINE)
    assert command.endswith("pip install --no-build-isolation --no-deps flash-attn==2.3.3")


def test_every_file_the_notes_name_is_there() -> None:
    named = set(re.findall(r"\b(?:configs|locks|scripts)/[\w.-]+\w", TEXT))
    assert len(named) >= 5
    assert [name for name in named if not (PROJECT_ROOT / name).exists()] == []


def test_the_notes_name_the_environment_and_the_file_as_they_are_called() -> None:
    name = yaml.safe_load(TEXT)["name"]
    commands = re.findall(r"^# \w+: +(conda .*)$", TEXT, re.MULTILINE)
    assert commands == [f"conda env create -f {FILE.name}", f"conda activate {name}", f"conda env remove -n {name}"]


@pytest.mark.slow  # imports the libraries
@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="with a GPU these commands would do their work")
@pytest.mark.parametrize("command", re.findall(r"^# \w+: +python (scripts/.*)$", TEXT, re.MULTILINE))
def test_each_command_of_the_notes_is_understood_and_asks_for_the_gpu(command: str) -> None:
    words = [sys.executable, *command.split()]
    done = subprocess.run(words, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "h100" in done.stdout + done.stderr


# What pip makes of such a section, with one small package in the place of all.


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    return path


def pip_accepts(wheel: Path, section: list[str], sha256: str = "") -> subprocess.CompletedProcess[str]:
    folder = wheel.parent
    (folder / "lock.txt").write_text(f"tiny==1.0 --hash=sha256:{sha256 or _sha256(wheel)}\n")
    (folder / "section.txt").write_text("\n".join(section) + "\n")
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--find-links", str(folder)]
    command += ["--target", str(folder / "target"), "-r", str(folder / "section.txt")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_pip_takes_a_pin_after_the_lock(wheel: Path) -> None:
    done = pip_accepts(wheel, ["-r lock.txt", "tiny==1.0"])
    assert done.returncode == 0, done.stderr


def test_pip_refuses_a_pin_that_the_lock_contradicts(wheel: Path) -> None:
    assert "conflicting" in pip_accepts(wheel, ["-r lock.txt", "tiny==2.0"]).stderr


def test_pip_refuses_a_package_with_another_hash(wheel: Path) -> None:
    assert pip_accepts(wheel, ["-r lock.txt", "tiny==1.0"], sha256="0" * 64).returncode != 0


def test_pip_refuses_a_pin_before_the_lock(wheel: Path) -> None:
    """Why the lock comes first. As a constraint it would do with pip 26, but not with the pip 23 of Python 3.11."""
    assert "Hashes are required" in pip_accepts(wheel, ["tiny==1.0", "-r lock.txt"]).stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What conda sees of the project, in a folder with spaces."""
    root = tmp_path / "a project with spaces"
    shutil.copytree(PROJECT_ROOT / "locks", root / "locks")
    shutil.copy(FILE, root)
    return root


@pytest.mark.slow  # 6.0 GB of packages: two to ten minutes, with how busy machine and network are; pip caches them
def test_the_pip_section_installs_exactly_the_lock_and_it_imports(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    refusal = refuse_platform(probe_host(), "reference")
    if refusal or sys.version_info[:2] != (3, 11):
        pytest.skip(f"the reference stack cannot be installed here: {refusal.message if refusal else sys.version}")
    free = shutil.disk_usage(project).free
    if free < NEEDED_BYTES:
        pytest.skip(f"{free / 1e9:.0f} GB disk are free, and this needs {NEEDED_BYTES / 1e9:.0f}")
    environment = tmp_path_factory.mktemp("envs") / "remote"  # as conda's: elsewhere, and without a space
    venv.EnvBuilder(with_pip=True).create(environment)
    python = environment / "bin" / "python"
    # What conda runs: the section in a file of its own beside the environment file.
    requirements = project / "condaenv.requirements.txt"
    requirements.write_text("\n".join(PIP_SECTION) + "\n")
    install = ["-m", "pip", "install", "-U", "-r", str(requirements), "--exists-action=b"]
    try:
        # Without bytecode for 30,000 files of which a hundredth is imported here: minutes on a busy machine.
        quick = {**os.environ, "PIP_NO_COMPILE": "1"}
        done = subprocess.run([python, *install], cwd=project, env=quick, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            trouble = diagnose(done.stderr, "pip could not install it")
            if trouble.is_temporary:
                pytest.skip(trouble.message)
            pytest.fail(f"{trouble.message}\n{done.stderr[-2000:]}")
        listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
        installed = {canonicalize_name(item["name"]): item["version"] for item in json.loads(listed.stdout)}
        assert installed == {canonicalize_name(name): version for name, version in LOCKED.items()}
        imported = subprocess.run([python, "-c", IMPORTS], capture_output=True, text=True, check=False)
        assert imported.stdout.splitlines()[-1:] == ["12.1"], imported.stderr
    finally:
        shutil.rmtree(environment)
