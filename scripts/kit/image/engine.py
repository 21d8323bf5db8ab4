"""Probe what running the image depends on: the Docker client and daemon, compose, the GPU's driver, a Hub token.

Standard library only, and for Python 3.9 on: it runs on the host, before anything is installed. Facts only;
``kit.image.engine_rules`` judges them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SECONDS = 20.0  # a daemon that is just starting takes some; a hung one must not hang the command


@dataclass(frozen=True)
class Client:
    """One ``docker`` on PATH, with its version as (major, minor)."""

    path: str
    version: tuple[int, int]
    has_buildx: bool

    @property
    def has_buildkit(self) -> bool:
        """Whether it builds with BuildKit: built in before 23, from then on buildx, a plugin."""
        return self.has_buildx or self.version < (23, 0)


@dataclass(frozen=True)
class Engine:
    """Facts about this machine's engine.

    Attributes:
        client: The first ``docker`` on PATH that can build, else the first at all; None where there is none.
        compose: The command that is compose here, such as ("docker-compose",); empty where there is none.
        server: The daemon's version; None where it does not answer.
        server_problem: The client's error.
        is_rootless: The daemon runs as an ordinary user, who is root inside its containers.
        has_nvidia_runtime: The daemon can hand GPUs to containers.
        free_bytes: Free space where the daemon keeps images; None where that is not this machine's.
        driver: NVIDIA's driver version; None where ``nvidia-smi`` did not say.
        gpus: Names of the NVIDIA GPUs.
        gpu_problem: Why there are none, in nvidia-smi's words.
        has_hub_token: A Hugging Face token is in the environment or in ``.env``. Its value is never read into a fact.
    """

    system: str
    arch: str
    client: Client | None = None
    compose: tuple[str, ...] = ()
    server: str | None = None
    server_problem: str = ""
    is_rootless: bool = False
    has_nvidia_runtime: bool = False
    free_bytes: int | None = None
    driver: str | None = None
    gpus: tuple[str, ...] = ()
    gpu_problem: str = ""
    has_hub_token: bool = False


@dataclass(frozen=True)
class EngineOutput:
    """A tool's output; ``code`` is 127 if it did not start, 124 after a time-out."""

    code: int
    out: str
    err: str


def ask(command: Sequence[str]) -> EngineOutput:
    """Run a tool for its answer."""
    try:
        done = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return EngineOutput(124, "", f"{Path(command[0]).name} did not answer within {_SECONDS:.0f} s")
    except OSError as exc:
        return EngineOutput(127, "", f"{command[0]}: {exc.strerror}")
    return EngineOutput(done.returncode, done.stdout.strip(), done.stderr.strip())


def clients_on(path: str) -> list[Client]:
    """Ask every ``docker`` on a PATH which version it is and whether it has buildx."""
    found: list[Client] = []
    for folder in path.split(os.pathsep):
        program = shutil.which("docker", path=folder)
        if program is None or program in [client.path for client in found]:
            continue
        numbers = re.search(r"(\d+)\.(\d+)", ask([program, "--version"]).out)
        version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
        found.append(Client(program, version, ask([program, "buildx", "version"]).code == 0))
    return found


def _compose(clients: Sequence[Client]) -> tuple[str, ...]:
    candidates = [(client.path, "compose") for client in clients]
    for command in (*candidates, ("docker-compose",)):
        if ask([*command, "version"]).code == 0:
            return command
    return ()


def _server(client: Client) -> dict[str, Any]:
    answer = ask([client.path, "info", "--format", "{{json .}}"])
    try:
        info = json.loads(answer.out) if answer.out else {}
    except ValueError:
        info = {}
    errors = info.get("ServerErrors") or []
    if answer.code or not info.get("ServerVersion"):
        return {"server_problem": " ".join([*errors, answer.err]).strip() or "it did not answer"}
    root = Path(info.get("DockerRootDir") or "/nowhere")
    return {
        "server": info["ServerVersion"],
        "is_rootless": any("rootless" in option for option in info.get("SecurityOptions") or []),
        # The daemon hands GPUs out where it finds NVIDIA's hook on its PATH, or its CDI devices.
        "has_nvidia_runtime": "nvidia" in (info.get("Runtimes") or {})
        or shutil.which("nvidia-container-runtime-hook") is not None
        or any("nvidia" in str(device) for device in info.get("DiscoveredDevices") or []),
        "free_bytes": shutil.disk_usage(root).free if root.is_dir() else None,
    }


def _nvidia() -> dict[str, Any]:
    answer = ask(["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"])
    if answer.code:
        return {"gpu_problem": " ".join((answer.out or answer.err).split())[:200]}
    rows = [line.split(", ", 1) for line in answer.out.splitlines() if ", " in line]
    return {"driver": rows[0][0] if rows else None, "gpus": tuple(name for _, name in rows)}


def has_hub_token(root: Path, environ: Mapping[str, str]) -> bool:
    """Tell whether the container will get a token: from the environment, or from the project's ``.env``."""
    if environ.get("HF_TOKEN", "").strip():
        return True
    try:
        lines = (root / ".env").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return any(re.match(r"\s*(?:export\s+)?HF_TOKEN=\s*[^\s#]", line) for line in lines)


def probe(root: Path) -> Engine:
    """Ask this machine."""
    clients = clients_on(os.environ.get("PATH", os.defpath))
    client = next((one for one in clients if one.has_buildkit), clients[0] if clients else None)
    return Engine(
        system=platform.system(),
        arch=platform.machine(),
        client=client,
        compose=_compose(clients),
        has_hub_token=has_hub_token(root, os.environ),
        **(_server(client) if client else {}),
        **_nvidia(),
    )
