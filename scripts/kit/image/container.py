"""A container of the image: whose it is, and the compose command that starts it.

Standard library only, and for Python 3.9 on. Pure but for ``prepare_folders`` and ``gpu_variable``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.machine.one_device import judged_gpu_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

DEFAULT_USER = (1000, 1000)
# Bind-mounted: the engine would make a missing one, as root.
MOUNTED = ("configs", "data", "models", "outputs", "measurements")
WRITTEN = ("models", "outputs", "measurements")


def container_user(host: tuple[int, int], environ: Mapping[str, str], *, is_rootless: bool) -> tuple[int, int]:
    """Return the (uid, gid) the container runs as, so that what it writes belongs to the person.

    Never root on the host: under sudo it is who called sudo, and for root itself 1000. A rootless engine maps the
    person to 0 inside, and everybody else to an id nobody has.
    """
    if is_rootless:
        return (0, 0)
    if host[0] != 0:
        return host
    if environ.get("SUDO_UID", "").isdigit() and environ.get("SUDO_GID", "").isdigit() and environ["SUDO_UID"] != "0":
        return (int(environ["SUDO_UID"]), int(environ["SUDO_GID"]))
    return DEFAULT_USER


def prepare_folders(root: Path, user: tuple[int, int]) -> None:
    """Make the folders that are mounted, and, as root, give those that are written to the container's user."""
    for name in MOUNTED:
        folder = root / name
        folder.mkdir(exist_ok=True)
        if name in WRITTEN and os.getuid() == 0 and folder.stat().st_uid == 0 and user[0] != 0:
            os.chown(folder, *user)


def compose_variables(image: str, stack: str, user: tuple[int, int], image_id: str = "") -> dict[str, str]:
    """Return compose.yaml's variables; ``stack`` is the image's tag, ``image_id`` is empty if unknown."""
    numbers = {"KIT_UID": str(user[0]), "KIT_GID": str(user[1])}
    return {"KIT_IMAGE": image, "STACK": stack, **numbers, "KIT_IMAGE_ID": image_id}


def gpu_variable(root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Hand the container the GPU that is judged on this host, unless the shell or ``.env`` names one by ``KIT_GPU``."""
    try:
        written = (root / ".env").read_text(encoding="utf-8", errors="replace")
    except OSError:
        written = ""
    if environ.get("KIT_GPU") or re.search(r"^\s*(?:export\s+)?KIT_GPU\s*=\s*\S", written, re.MULTILINE):
        return {}
    name = judged_gpu_name()
    return {"KIT_GPU": name} if name else {}


@dataclass(frozen=True)
class Service:
    """One service of compose.yaml, to be run once.

    Attributes:
        with_gpu: It reserves the GPU.
        has_terminal: Attached to a terminal.
        container: Its container's name; empty lets compose choose.
    """

    name: str
    arguments: Sequence[str] = ()
    with_gpu: bool = False
    has_terminal: bool = False
    container: str = ""


def run_command(root: Path, compose: Sequence[str], service: Service) -> list[str]:
    """Return the command line that runs a service and removes its container afterwards."""
    command = [*compose, "--project-directory", str(root), "--file", str(root / "docker" / "compose.yaml")]
    if service.with_gpu:
        command += ["--file", str(root / "docker" / "compose.gpu.yaml")]
    terminal = () if service.has_terminal else ("-T",)
    name = ("--name", service.container) if service.container else ()
    return [*command, "run", "--rm", *terminal, *name, service.name, *service.arguments]
