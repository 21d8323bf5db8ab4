"""The locks: which there are, how each is compiled, and whether one still matches what it was compiled from.

Standard library only, and for Python 3.9 on: the set-up command reads this before anything is installed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from kit.cli.findings import Finding, error, ok

_INPUTS_PREFIX = "# inputs: "
_CONTENT_PREFIX = "# content: "
_GB = 10**9


@dataclass(frozen=True)
class Lock:
    """One compiled lock.

    Attributes:
        source: The ``.in`` it is compiled from, relative to the project.
        target: The compiled file, relative to the project.
        options: Of `uv pip compile`, besides source and target.
        environment: Variables the compilation needs, as (name, value).
        installed_bytes: Disk the installed environment takes, as `du` measures it.
        beside: Target of the lock whose environment it is added to, and whose packages it must not change.
    """

    name: str
    source: str
    target: str
    options: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    installed_bytes: int = 0
    beside: str = ""


_PYTHON = ("--python-version", "3.11")
# manylinux_2_28 is what torch's own wheels ask for; anything newer would shut out Debian 11 and RHEL 8 for nothing.
_LINUX = (*_PYTHON, "--python-platform", "x86_64-manylinux_2_28", "--only-binary", ":all:")
_MACOS = (*_PYTHON, "--python-platform", "aarch64-apple-darwin", "--only-binary", ":all:")

REFERENCE = Lock(
    "reference", "locks/reference.in", "locks/reference-linux-x86_64.txt", _LINUX, installed_bytes=int(5.8 * _GB)
)
CURRENT = Lock("current", "locks/current.in", "locks/current-linux-x86_64.txt", _LINUX, installed_bytes=int(8.2 * _GB))
# FlashAttention 4, for who asks for it. nvidia-cutlass-dsl lies on sys.path by a .pth file, which Python reads only in
# an environment's own site-packages: a folder on PYTHONPATH would not do.
ATTENTION = Lock(
    "attention",
    "locks/attention.in",
    "locks/attention-linux-x86_64.txt",
    _LINUX,
    installed_bytes=int(0.4 * _GB),
    beside=CURRENT.target,
)
M4 = Lock(
    "m4",
    "locks/current.in",
    "requirements-m4.txt",
    _MACOS,
    # bitsandbytes has 4-bit on a Mac from 0.50, whose wheel needs macOS 14: for uv's default of 13 it would not exist.
    environment=(("MACOSX_DEPLOYMENT_TARGET", "14.0"),),
    installed_bytes=int(1.2 * _GB),
)
DEV = Lock("dev", "locks/dev.in", "locks/dev.txt", ("--universal", *_PYTHON), installed_bytes=int(0.2 * _GB))
# For any Python that can start the set-up, and every platform uv has a wheel for.
UV = Lock("uv", "locks/uv.in", "locks/uv.txt", ("--universal", "--python-version", "3.9"))
# pip-audit, for `make audit`: in .cache/pip-audit, so that what looks for vulnerabilities shapes no environment.
AUDIT = Lock("audit", "locks/audit.in", "locks/audit.txt", ("--universal", *_PYTHON, "--only-binary", ":all:"))
# cyclonedx-bom, for `make image-sbom`: in .cache/cyclonedx-py.
SBOM = Lock("sbom", "locks/sbom.in", "locks/sbom.txt", ("--universal", *_PYTHON, "--only-binary", ":all:"))
# mistral-common, for the tests that hold the rows to it: in .cache/mistral_common.
MISTRAL = Lock("mistral", "locks/mistral.in", "locks/mistral.txt", ("--universal", *_PYTHON, "--only-binary", ":all:"))
LOCKS = (REFERENCE, CURRENT, ATTENTION, M4, DEV, UV, AUDIT, SBOM, MISTRAL)
STAMP = ".kit-lock"  # in an environment: the hash of the lock it was made from


def digest(text: str) -> str:
    """Hash a text: SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def inputs_digest(root: Path, lock: Lock) -> str:
    """Hash all that decides what a compilation asks for: the ``.in``, the options and the variables."""
    asked = (root / lock.source).read_text(encoding="utf-8")
    return digest(repr((asked, lock.options, lock.environment)))


def with_header(root: Path, lock: Lock, compiled: str) -> str:
    """Put the stamps before what uv compiled: a hash of what was asked, and one of what came out."""
    return (
        f"# Compiled from {lock.source} by `make lock`, which is also how it is changed.\n"
        f"{_INPUTS_PREFIX}{inputs_digest(root, lock)}\n"
        f"{_CONTENT_PREFIX}{digest(compiled)}\n"
        f"{compiled}"
    )


def check_lock(root: Path, lock: Lock) -> Finding:
    """Tell, without a network, whether a lock is what its ``.in`` compiled to."""
    identity, fix = f"lock.{lock.name}", "make lock"
    try:
        asked = inputs_digest(root, lock)
        lines = (root / lock.target).read_text(encoding="utf-8").splitlines(keepends=True)
        others = packages((root / lock.beside).read_text(encoding="utf-8")) if lock.beside else {}
    except (OSError, UnicodeDecodeError) as exc:
        return error(identity, f"the lock or its source cannot be read: {exc}", fix, lock.target)
    stamps = {
        prefix: line[len(prefix) :].strip()
        for prefix in (_INPUTS_PREFIX, _CONTENT_PREFIX)
        for line in lines[:3]
        if line.startswith(prefix)
    }
    if stamps.get(_INPUTS_PREFIX) != asked:
        return error(identity, f"{lock.source} or its compile options changed since it was compiled", fix, lock.target)
    if stamps.get(_CONTENT_PREFIX) != digest("".join(lines[3:])):
        return error(identity, "it was edited by hand, or a merge mixed two of them", fix, lock.target)
    for name, version in packages("".join(lines)).items():
        if others.get(name, version) != version:
            message = f"{name} is {version}, and {others[name]} in {lock.beside}, beside which it is installed"
            return error(identity, message, fix, lock.target)
    return ok(identity, f"it matches {lock.source}", lock.target)


def packages(text: str) -> dict[str, str]:
    """Read the pinned version by package from a compiled lock."""
    pins = {}
    for line in text.splitlines():
        name, separator, version = line.partition("==")
        if separator and not line[0].isspace() and not line.startswith("#"):
            pins[name] = version.split()[0]
    return pins
