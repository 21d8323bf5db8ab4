"""What a machine must have before an environment can be made on it: facts first, then the judgement.

Standard library only, and for Python 3.9 on. A judgement is a sentence and its fix, or None where nothing is wrong.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kit.cli.logins import expanded
from kit.stacks.locks import CURRENT, M4, REFERENCE, Lock

OLDEST_PYTHON = (3, 9)
OLDEST_GLIBC = (2, 28)
OLDEST_MACOS = (14, 0)
_GB = 10**9


class Refusal(NamedTuple):
    """Why it cannot be done here, and what can be done instead."""

    message: str
    fix: str


@dataclass(frozen=True)
class Host:
    """What setting up depends on.

    Attributes:
        system: Linux, Darwin or Windows.
        arch: What the running Python was built for: x86_64, arm64, aarch64.
        python: The running Python, as (major, minor).
        glibc: The C library's version on Linux; None where it is another one, such as musl.
        macos: The macOS version; None elsewhere.
        is_rosetta: An x86-64 Python runs translated on Apple silicon.
        has_ensurepip: This Python can make a virtual environment with pip in it.
        is_debian_like: ``apt-get`` is there to install what is missing.
    """

    system: str
    arch: str
    python: tuple[int, int]
    glibc: tuple[int, int] | None = None
    macos: tuple[int, int] | None = None
    is_rosetta: bool = False
    has_ensurepip: bool = True
    is_debian_like: bool = False


def _version_pair(text: str) -> tuple[int, int] | None:
    parts = [int(part) for part in text.split(".")[:2] if part.isdigit()]
    return (parts[0], parts[1] if len(parts) > 1 else 0) if parts else None


def probe_host() -> Host:
    """Ask the running Python and the system."""
    system, arch = platform.system(), platform.machine()
    is_rosetta = False
    if system == "Darwin" and arch == "x86_64":
        asked = subprocess.run(["sysctl", "-n", "hw.optional.arm64"], capture_output=True, text=True, check=False)
        is_rosetta = asked.stdout.strip() == "1"
    library, version = platform.libc_ver() if system == "Linux" else ("", "")
    return Host(
        system=system,
        arch=arch,
        python=sys.version_info[:2],
        glibc=_version_pair(version) if library == "glibc" else None,
        macos=_version_pair(platform.mac_ver()[0]) if system == "Darwin" else None,
        is_rosetta=is_rosetta,
        has_ensurepip=importlib.util.find_spec("ensurepip") is not None,
        is_debian_like=shutil.which("apt-get") is not None,
    )


def refuse_python(host: Host) -> Refusal | None:
    """Judge the Python that runs this."""
    found = ".".join(map(str, host.python))
    if host.python < OLDEST_PYTHON:
        return Refusal(
            f"this is Python {found}, but set-up needs 3.9 or newer (the environment itself gets 3.11)",
            "install Python 3.11 and run `make setup PYTHON=python3.11`",
        )
    if not host.has_ensurepip:
        fix = (
            f"apt-get install python{found}-venv (as root)" if host.is_debian_like else "install its venv and pip parts"
        )
        return Refusal(f"Python {found} is installed without ensurepip, so it cannot create an environment", fix)
    return None


def refuse_platform(host: Host, stack: str) -> Refusal | None:
    """Judge whether a stack exists for this machine."""
    there_is = "the kit has locks for Linux on x86-64 (current, reference) and macOS on Apple silicon (current)"
    if host.system == "Windows":
        return Refusal(f"Windows itself is not supported: {there_is}", "run it in WSL2 on an x86-64 machine")
    if host.system == "Darwin":
        return _refuse_mac(host, stack, there_is)
    if stack == "m4":
        return Refusal(
            f".venv-m4 is for a Mac with Apple silicon, and this is {host.system} on {host.arch}",
            "run `make setup` here; ./setup_m4.sh natively on the Mac",
        )
    if (host.system, host.arch) != ("Linux", "x86_64"):
        return Refusal(f"{host.system} on {host.arch} is not supported: {there_is}", "use one of these machines")
    if host.glibc is None or host.glibc < OLDEST_GLIBC:
        found = ".".join(map(str, host.glibc)) if host.glibc else "another C library"
        return Refusal(
            f"torch's Linux wheels need glibc {'.'.join(map(str, OLDEST_GLIBC))} or newer, and this system has {found}",
            "use a newer Linux that is built on glibc, such as Debian 11, Ubuntu 20.04 or RHEL 8 and later",
        )
    return None


def _refuse_mac(host: Host, stack: str, there_is: str) -> Refusal | None:
    if host.is_rosetta:
        return Refusal(
            "this Python is an x86-64 build under Rosetta on Apple silicon, and torch would be too",
            "install an arm64 Python (`brew install python@3.11`) and name it: `make setup PYTHON=…`",
        )
    if host.arch != "arm64":
        return Refusal(f"Macs with Intel processors are not supported: {there_is}", "use a Mac with Apple silicon")
    if stack == "reference":
        return Refusal(
            "the reference stack cannot run on a Mac: its bitsandbytes 0.41 is CUDA only, so there is no 4-bit",
            "use the current stack: `make setup`",
        )
    if host.macos is not None and host.macos < OLDEST_MACOS:
        return Refusal(
            f"4-bit and bfloat16 on Apple GPUs need macOS 14 or newer, and this is {'.'.join(map(str, host.macos))}",
            "update macOS",
        )
    return None


def lock_for(host: Host, stack: str) -> Lock:
    """Return the lock of a stack; ``refuse_platform`` says whether it exists for this machine."""
    if stack == "reference":
        return REFERENCE
    return M4 if stack == "m4" or host.system == "Darwin" else CURRENT


def refuse_folder(folder: Path) -> Refusal | None:
    """Judge by trying whether a folder can be written: permissions alone do not tell of a read-only mount."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as exc:
        return Refusal(f"{folder} cannot be written: {exc.strerror}", "copy the project to a folder you can write to")


def refuse_spaces(environment: Path, stack: str) -> Refusal | None:
    """Judge the path: triton 2.1 cuts that of its own ptxas at the first space, and then trl does not import."""
    if stack != "reference" or " " not in str(environment):
        return None
    return Refusal(
        f"{environment}: the reference stack does not work in a path with a space: its triton 2.1 fails with 'Cannot "
        "find ptxas'",
        "rename the folder, or use the current stack: make setup",
    )


def package_cache() -> Path:
    """Return the folder uv keeps packages in, as uv finds it."""
    return expanded(os.environ.get("UV_CACHE_DIR") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/uv")


def _nearest_existing(path: Path) -> Path:
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())


def disk_used(folder: Path) -> int:
    """Add up the bytes of all files under a folder; 0 where there is none."""
    return sum(
        (Path(parent) / name).lstat().st_size for parent, _, names in os.walk(folder) for name in names
    )  # fmt: skip


def refuse_disk(needed: int, free: int, place: Path) -> Refusal | None:
    """Judge the space on one disk; sizes in bytes."""
    if free >= needed:
        return None
    return Refusal(
        f"{place}: the packages need {needed / _GB:.1f} GB, and {free / _GB:.1f} GB are free",
        f"free {max((needed - free) / _GB, 0.1):.1f} GB; or, if uv has the packages in its cache, pass "
        "ARGS=--skip-disk-check",
    )


def refuse_disks(needed: int, environment: Path, cache: Path) -> Refusal | None:
    """Judge the environment's disk and, where it is another one, the package cache's.

    On one disk uv links from the cache, so the packages take their space once.
    """
    places = {_nearest_existing(place).stat().st_dev: _nearest_existing(place) for place in (cache, environment)}
    for place in places.values():
        refusal = refuse_disk(needed, shutil.disk_usage(place).free, place)
        if refusal:
            return refusal
    return None
