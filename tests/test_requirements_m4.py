"""The Mac's lock, as far as it can be shown on another machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from packaging.utils import canonicalize_name

from kit.cli.interpreter import PROJECT_ROOT
from kit.stacks.locks import M4, packages
from small_run import read_receipt, run_training
from tools.setup.rules import probe_host
from tools.setup.uv import SetupError, base_python, diagnose, ensure_uv, run_uv

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = (PROJECT_ROOT / M4.target).read_text(encoding="utf-8")
PINS = packages(TEXT)
MACOS = (14, 0)
# The environment, and what uv unpacks beside it where its cache is cold.
NEEDED_BYTES = 14 * 10**9
# These two decide what a Mac can do; a pure-Python fallback of either would have no 4-bit, or no MPS.
NATIVE = ("bitsandbytes", "torch")


@dataclass(frozen=True)
class Wheel:
    """The file pip takes for a Mac with macOS 14."""

    name: str
    sha256: str

    @property
    def platforms(self) -> list[str]:
        return self.name.removesuffix(".whl").split("-")[-1].split(".")

    @property
    def fits(self) -> bool:
        for platform in self.platforms:
            macos = re.fullmatch(r"macosx_(\d+)_(\d+)_(?:arm64|universal2)", platform)
            if platform == "any" or (macos and (int(macos[1]), int(macos[2])) <= MACOS):
                return True
        return False


def hashes() -> dict[str, set[str]]:
    """The hashes the lock allows, by package."""
    blocks = re.split(r"^(?=[a-z0-9][\w.-]*==)", TEXT, flags=re.MULTILINE)[1:]
    return {block.split("==")[0]: set(re.findall(r"--hash=sha256:(\w{64})", block)) for block in blocks}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Wheel]:
    """Ask the registry, through pip, which file each pin is on such a Mac: metadata only, nothing is downloaded."""
    folder: Path = tmp_path_factory.mktemp("macos")
    # In hash mode pip would download every file before it answers; so the hashes are compared here.
    (folder / "pins.txt").write_text("".join(f"{name}=={version}\n" for name, version in PINS.items()))
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed"]
    command += ["--retries", "2"]  # each is warned of, which tells an absent network from an absent wheel
    command += ["--platform", "macosx_14_0_arm64", "--python-version", "3.11", "--implementation", "cp"]
    command += ["--only-binary", ":all:", "--target", str(folder / "target")]
    command += ["--report", str(folder / "report.json"), "-r", str(folder / "pins.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        if "connection broken by" in done.stderr:
            pytest.skip(f"not checked: {diagnose(done.stderr, 'the package registry did not answer').message}")
        pytest.fail(done.stderr[-2000:])
    found = {}
    for item in json.loads((folder / "report.json").read_text())["install"]:
        download = item["download_info"]
        found[canonicalize_name(item["metadata"]["name"])] = Wheel(
            download["url"].rsplit("/", 1)[-1], download["archive_info"]["hashes"]["sha256"]
        )
    return found


@pytest.mark.slow  # asks the registry about each package
def test_every_pin_has_a_wheel_for_macos_14_on_apple_silicon(wheels: dict[str, Wheel]) -> None:
    assert wheels.keys() == PINS.keys()
    assert [wheel.name for wheel in wheels.values() if not wheel.fits] == []


@pytest.mark.slow  # asks the registry about each package
def test_the_lock_holds_the_hash_of_each_of_these_wheels(wheels: dict[str, Wheel]) -> None:
    allowed = hashes()
    assert [wheel.name for name, wheel in wheels.items() if wheel.sha256 not in allowed[name]] == []


@pytest.mark.slow  # asks the registry about each package
@pytest.mark.parametrize("package", NATIVE)
def test_what_works_the_gpu_is_built_for_the_mac(wheels: dict[str, Wheel], package: str) -> None:
    assert wheels[package].platforms == ["macosx_14_0_arm64"]


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("a-1-py3-none-any.whl", True),
        ("a-1-cp311-cp311-macosx_11_0_arm64.whl", True),
        ("a-1-cp311-cp311-macosx_10_9_universal2.whl", True),
        ("a-1-cp311-cp311-macosx_15_0_arm64.whl", False),
        ("a-1-cp311-cp311-macosx_11_0_x86_64.whl", False),
        ("a-1-cp311-cp311-manylinux_2_28_aarch64.whl", False),
        ("a-1-cp311-cp311-macosx_10_9_x86_64.macosx_11_0_arm64.whl", True),
    ],
)
def test_a_wheel_is_judged_by_its_name(name: str, *, fits: bool) -> None:
    assert Wheel(name, "").fits is fits


@pytest.fixture(scope="module")
def same_versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Mac's versions in their Linux wheels: another torch build, the same Python code in every library."""
    host = probe_host()
    if (host.system, host.arch) != ("Linux", "x86_64"):
        pytest.skip("these are the wheels for Linux on x86-64; on a Mac: ./setup_m4.sh --check")
    folder = tmp_path_factory.mktemp("same-versions")
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        pytest.skip(f"{free / 1e9:.0f} GB disk are free, and this needs {NEEDED_BYTES / 1e9:.0f}")
    pins, environment = folder / "pins.txt", folder / "env"
    pins.write_text("".join(f"{name}=={version}\n" for name, version in PINS.items()))
    try:
        uv = ensure_uv(PROJECT_ROOT)
        run_uv(uv, ["venv", "--quiet", "--no-project", "--python", base_python(), str(environment)], "no environment")
        python = environment / "bin" / "python"
        install = ["pip", "install", "--quiet", "--only-binary", ":all:", "--python", str(python), "-r", str(pins)]
        run_uv(uv, install, "uv could not install the versions")
        yield python
    except SetupError as exc:
        if not exc.is_temporary:
            raise
        pytest.skip(f"not checked: {exc.message}")
    finally:
        shutil.rmtree(environment, ignore_errors=True)


@pytest.mark.slow  # 5.8 GB of packages: half a minute from a near registry, and less from uv's cache
def test_the_macs_versions_train_in_four_bits(same_versions: Path, tiny_base: Path, tmp_path: Path) -> None:
    done = run_training(tiny_base, tmp_path / "out", python=str(same_versions), training__max_steps=3)
    assert done.returncode == 0, done.stderr
    receipt = read_receipt(tmp_path / "out")
    assert receipt["packages"]["torch"].split("+")[0] == PINS["torch"]  # type: ignore[index]
    assert receipt["config"]["quantization"]["load_in_4bit"] is True  # type: ignore[index]
    assert receipt["adapter_sha256"] != receipt["adapter_init_sha256"]


@pytest.mark.slow
def test_the_device_probe_passes_with_the_macs_versions(same_versions: Path) -> None:
    command = [str(same_versions), "scripts/validate_environment.py", "--require", "cpu", "--json"]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    errors = [item for item in json.loads(done.stdout)["findings"] if item["severity"] == "error"]
    assert [item["id"] for item in errors] == []
