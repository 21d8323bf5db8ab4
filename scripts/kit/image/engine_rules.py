"""Judge whether the image can be built and started here, each problem with its fix. Pure functions.

Standard library only, and for Python 3.9 on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, ok, warning
from kit.stacks.registry import GENERATIONS

if TYPE_CHECKING:
    from kit.image.engine import Engine

# CUDA 12 runs on every driver from this one on (NVIDIA, "CUDA Compatibility", minor version compatibility).
OLDEST_DRIVER = (525, 60, 13)
_GB = 10**9


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def check_machine(engine: Engine) -> list[Finding]:
    """Say whether the image, which is Linux on x86-64, runs on this machine."""
    identity = "image.machine"
    if engine.system == "Darwin":
        message = "containers on a Mac have neither an NVIDIA GPU nor Metal"
        return [error(identity, message, "use the Mac's native environment: make setup-m4, make train-m4")]
    if engine.system != "Linux":
        return [error(identity, f"the image needs Linux, this is {engine.system}", "run it in WSL2")]
    if engine.arch != "x86_64":
        message = f"the image needs x86-64, this is {engine.arch}"
        return [error(identity, message, "use an x86-64 machine")]
    return []


def check_engine(engine: Engine, *, needs_compose: bool = True) -> list[Finding]:
    """Judge client, daemon and, where it is needed, compose."""
    if engine.client is None:
        fix = "install Docker Engine (Debian, Ubuntu: apt-get install docker.io docker-compose)"
        return [error("image.engine_missing", "there is no docker on PATH", fix)]
    found = [] if engine.server else [_server_error(engine)]
    if engine.server:
        found.append(ok("image.engine", f"Docker {engine.server}, by {engine.client.path}"))
    if not engine.client.has_buildkit:
        version = ".".join(map(str, engine.client.version))
        message = f"{engine.client.path} ({version}) has no buildx, which BuildKit needs since version 23"
        fix = "install the plugin: apt-get install docker-buildx-plugin (Debian's own package: docker-buildx)"
        found.append(error("image.buildkit", message, fix))
    if needs_compose and not engine.compose:
        fix = "install it: apt-get install docker-compose-plugin (Debian's own package: docker-compose)"
        found.append(error("image.compose_missing", "neither `docker compose` nor docker-compose is installed", fix))
    return found


def _server_error(engine: Engine) -> Finding:
    identity, said = "image.engine_unreachable", engine.server_problem
    if "permission denied" in said.lower():
        fix = "sudo usermod -aG docker $USER, then log in again; or install rootless Docker"
        return error(identity, "this user has no access to the Docker daemon", fix)
    fix = "start it: sudo systemctl start docker; elsewhere: check DOCKER_HOST"
    return error(identity, f"the Docker daemon does not answer: {said}", fix)


def check_disk(engine: Engine, stack: str) -> list[Finding]:
    """Say whether a first build fits on the daemon's disk."""
    needed, free = GENERATIONS[stack].image_build_bytes, engine.free_bytes
    if free is None or free >= needed:
        return []
    message = (
        f"building the {stack} image takes up to {needed / _GB:.0f} GB; the engine's disk has {free / _GB:.1f} GB free"
    )
    fix = "free some space: docker system df lists what can be removed, docker builder prune empties build caches"
    return [warning("image.disk", message, fix)]


def check_gpu(engine: Engine) -> list[Finding]:
    """Judge what a container needs to reach the GPU: the GPU, its driver, NVIDIA's runtime."""
    if not engine.gpus:
        said = f": {engine.gpu_problem}" if engine.gpu_problem else ""
        fix = (
            "install NVIDIA's driver on the host (nvidia-smi must list the GPU); "
            "without a GPU: make demo-image, or make demo"
        )
        return [error("image.gpu_missing", f"nvidia-smi lists no NVIDIA GPU on this machine{said}", fix)]
    found = []
    if engine.driver and _numbers(engine.driver) < OLDEST_DRIVER:
        oldest = ".".join(map(str, OLDEST_DRIVER))
        message = f"NVIDIA's driver is {engine.driver}; CUDA 12 needs {oldest} or later"
        fix = "update the host's driver, which containers use too"
        found.append(error("image.driver_too_old", message, fix))
    if engine.server and not engine.has_nvidia_runtime:
        fix = (
            "install the NVIDIA Container Toolkit (package nvidia-container-toolkit), then: "
            "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
        )
        found.append(error("image.gpu_runtime_missing", "the engine cannot pass a GPU to a container", fix))
    return found or [ok("image.gpu", f"{', '.join(engine.gpus)}, driver {engine.driver}")]


def check_access(engine: Engine) -> list[Finding]:
    """Say that a gated model will be refused without a token; validation inside asks the Hub itself."""
    if engine.has_hub_token:
        return [ok("image.hub_token", "the container gets a Hugging Face token")]
    message = "no Hugging Face token is passed to the container, so gated models cannot be downloaded"
    fix = "for a gated model: cp .env.example .env, set HF_TOKEN in it, and accept the model's terms on its page"
    return [warning("image.hub_token", message, fix)]
