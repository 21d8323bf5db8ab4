"""The build of the image: what goes into it, under which name, with which arguments.

Standard library only, and for Python 3.9 on. Pure but for reading the project's own files.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kit.image.engine import Client

NAME = "mistral-qlora-kit"
# What the Dockerfile copies or mounts; .dockerignore lets nothing else through.
SOURCES = (
    ".dockerignore", "LICENSE", "configs", "data/sample", "docker/Dockerfile", "docker/entrypoint",
    "locks", "pyproject.toml", "scripts",
)  # fmt: skip
SOURCE_LABEL = "kit.source.sha256"
WHEEL_LABEL = "kit.flash-attn"
BASE_LABEL = "org.opencontainers.image.base.name"
DEFAULT_BASE = "python:3.11-slim-bookworm"
_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class Build:
    """One build.

    Attributes:
        stack: The generation it holds.
        user: The (uid, gid) that owns what the container writes.
        flash_attn_sha256: Its checksum; empty has the build print it.
        network: ``host`` where only the host's network reaches the registries; empty for Docker's own.
        ca_bundle: A certificate bundle the build trusts, as a secret that no layer keeps; empty for none.
    """

    name: str
    stack: str
    user: tuple[int, int]
    base_image: str = ""
    flash_attn_wheel: str = ""
    flash_attn_sha256: str = ""
    network: str = ""
    ca_bundle: str = ""
    revision: str = "unknown"

    @property
    def tag(self) -> str:
        """The image's name and tag."""
        return f"{self.name}:{self.stack}"


def ca_bundle(environ: Mapping[str, str]) -> str:
    """Return the certificate bundle set for this machine's tools; empty without one."""
    given = (environ.get(name, "") for name in _CERTIFICATE_VARIABLES)
    return next((path for path in given if path and os.path.isfile(path)), "")  # noqa: PTH113 - a string all along


def source_files(root: Path) -> list[Path]:
    """Return every file the image is made of, in one order on every machine."""
    files: list[Path] = []
    for name in SOURCES:
        path = root / name
        files += [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sorted(file for file in files if "__pycache__" not in file.parts)


def source_digest(root: Path, build: Build) -> str:
    """Hash what decides the image's content: its files and the arguments that change what is installed."""
    digest = hashlib.sha256()
    arguments = (
        build.stack,
        build.user,
        build.base_image or DEFAULT_BASE,
        build.flash_attn_wheel,
        build.flash_attn_sha256,
    )
    digest.update(repr(arguments).encode())
    for path in source_files(root):
        content = path.read_bytes()
        digest.update(f"\0{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def lock_digest(root: Path, stack: str) -> str:
    """Hash the stack's lock."""
    return hashlib.sha256((root / "locks" / f"{stack}-linux-x86_64.txt").read_bytes()).hexdigest()


def remembered(build: Build, labels: Mapping[str, str], *, wheel_given: bool) -> Build:
    """Fill in options missing on the command line from the existing image's labels."""
    build = replace(build, base_image=build.base_image or labels.get(BASE_LABEL, ""))
    if wheel_given:
        return build
    return replace(
        build,
        flash_attn_wheel=labels.get(WHEEL_LABEL, build.flash_attn_wheel),
        flash_attn_sha256=build.flash_attn_sha256 or labels.get(f"{WHEEL_LABEL}.sha256", ""),
    )


def build_command(root: Path, build: Build, client: Client) -> list[str]:
    """Return the command line that builds; run it in the project with DOCKER_BUILDKIT=1."""
    arguments = {
        "STACK": build.stack,
        "BASE_IMAGE": build.base_image or DEFAULT_BASE,
        "KIT_UID": str(build.user[0]),
        "KIT_GID": str(build.user[1]),
        "FLASH_ATTN_WHEEL": build.flash_attn_wheel,
        "FLASH_ATTN_SHA256": build.flash_attn_sha256,
        "REVISION": build.revision,
        "LOCK_SHA256": lock_digest(root, build.stack),
        "SOURCE_SHA256": source_digest(root, build),
    }
    # Where the chosen builder is another one than Docker's own, --load is what brings the image to it.
    command = [client.path, *(("buildx", "build", "--load") if client.has_buildx else ("build",))]
    command += ["--file", "docker/Dockerfile", "--tag", build.tag]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    if build.network:
        command += ["--network", build.network]
    if build.ca_bundle:
        command += ["--secret", f"id=ca,src={build.ca_bundle}"]
    return [*command, "."]
