import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.stacks.locks import CURRENT, M4, REFERENCE
from tools.setup import rules as setup_rules
from tools.setup.rules import Host, lock_for, refuse_disk, refuse_folder, refuse_platform, refuse_python, refuse_spaces

LINUX = Host("Linux", "x86_64", (3, 11), glibc=(2, 36), is_debian_like=True)
MAC = Host("Darwin", "arm64", (3, 11), macos=(15, 1))


def changed(host: Host, **facts: Any) -> Host:
    return Host(**{**vars(host), **facts})


@pytest.mark.parametrize(("host", "stack"), [(LINUX, "current"), (LINUX, "reference"), (MAC, "current")])
def test_supported_machines_are_not_refused(host: Host, stack: str) -> None:
    assert refuse_platform(host, stack) is None


@pytest.mark.parametrize(
    ("host", "stack", "reason", "way_out"),
    [
        (changed(LINUX, arch="aarch64"), "current", "Linux on aarch64 is not supported", "machines"),
        (Host("Windows", "AMD64", (3, 11)), "current", "Windows itself is not supported", "WSL2"),
        (Host("FreeBSD", "amd64", (3, 11)), "current", "FreeBSD on amd64 is not supported", "machines"),
        (changed(LINUX, glibc=None), "current", "another C library", "glibc"),
        (changed(LINUX, glibc=(2, 17)), "current", "this system has 2.17", "Debian 11"),
        (MAC, "reference", "CUDA only", "make setup"),
        (changed(MAC, macos=(13, 6)), "current", "this is 13.6", "update macOS"),
        (changed(MAC, arch="x86_64"), "current", "Intel", "Apple silicon"),
        (changed(MAC, arch="x86_64", is_rosetta=True), "current", "under Rosetta", "arm64 Python"),
    ],
)
def test_unsupported_machines_are_refused_with_a_way_out(host: Host, stack: str, reason: str, way_out: str) -> None:
    refusal = refuse_platform(host, stack)
    assert refusal is not None
    assert reason in refusal.message
    assert way_out in refusal.fix


def test_an_old_python_is_refused() -> None:
    refusal = refuse_python(changed(LINUX, python=(3, 8)))
    assert refusal is not None
    assert "this is Python 3.8" in refusal.message


def test_python_without_ensurepip_names_debians_package() -> None:
    refusal = refuse_python(changed(LINUX, has_ensurepip=False))
    assert refusal is not None
    assert "apt-get install python3.11-venv" in refusal.fix


def test_python_without_ensurepip_names_no_debian_package_elsewhere() -> None:
    refusal = refuse_python(changed(LINUX, has_ensurepip=False, is_debian_like=False))
    assert refusal is not None
    assert "apt-get" not in refusal.fix


def test_too_little_disk_says_how_much_is_needed_and_how_much_is_free() -> None:
    refusal = refuse_disk(8 * 10**9, 2_500_000_000, Path("/data"))
    assert refusal is not None
    assert refusal.message == "/data: the packages need 8.0 GB, and 2.5 GB are free"
    assert refusal.fix.startswith("free 5.5 GB")


def test_enough_disk_is_not_refused() -> None:
    assert refuse_disk(10, 10, Path("/data")) is None


def test_the_package_caches_own_disk_is_judged_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    real_stat = Path.stat

    def stat(self: Path, **options: Any) -> os.stat_result:
        result = real_stat(self, **options)
        return os.stat_result([*result[:2], 4711, *result[3:10]]) if self == cache else result

    usage = {cache: 1, tmp_path: 10**12}
    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(setup_rules.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(0, 0, usage[place]))
    refusal = setup_rules.refuse_disks(10**9, tmp_path / ".venv", cache)
    assert refusal is not None
    assert str(cache) in refusal.message


def test_a_read_only_mount_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(**_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(setup_rules.tempfile, "TemporaryFile", read_only)
    refusal = refuse_folder(tmp_path)
    assert refusal is not None
    assert "Read-only file system" in refusal.message


@pytest.mark.parametrize(
    ("folder", "stack", "refused"),
    [("/a b/.venv", "reference", True), ("/a/.venv", "reference", False), ("/a b/.venv", "current", False)],
)
def test_the_reference_stack_is_refused_where_the_path_has_a_space(folder: str, stack: str, *, refused: bool) -> None:
    assert (refuse_spaces(Path(folder), stack) is not None) is refused


@pytest.mark.stacks
def test_triton_2_1_does_not_find_its_ptxas_where_the_path_has_a_space(tmp_path: Path) -> None:
    """Why there is ``refuse_spaces``: where this fails, it can go."""
    environment = PROJECT_ROOT / ".venv-reference"
    if not environment.exists():
        pytest.skip("there is no .venv-reference: make setup STACK=reference")
    packages = tmp_path / "a b"
    packages.symlink_to(environment / "lib" / "python3.11" / "site-packages")
    command = [environment / "bin" / "python", "-c", "from triton.common.backend import path_to_ptxas as p; p()"]
    variables = {**os.environ, "PYTHONPATH": str(packages)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert "Cannot find ptxas" in done.stderr


def test_a_mac_gets_its_own_lock() -> None:
    assert [lock_for(MAC, "current"), lock_for(LINUX, "current"), lock_for(LINUX, "reference")] == [
        M4, CURRENT, REFERENCE,
    ]  # fmt: skip
