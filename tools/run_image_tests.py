"""Build both images, one at a time, and try each: what `.ci/run` does about containers.

Run as:
    make test-image
    make test-image ARGS="--stack current -- -k stop"     # one image; what follows -- goes to pytest

A Docker engine that is running is used; where there is none, and this is root on Linux, one is started for the time
being (with CI set, it is installed from Debian first). The base is the Dockerfile's where it can be pulled, otherwise a
stand-in made with debootstrap. Whatever is made here is removed at the end. Exit codes: 0 what ran passed, 1 something
failed, 77 nothing could run here; what was left out is said with its reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.command import command_parser, run_main
from kit.cli.console import say
from kit.cli.interpreter import PROJECT_ROOT
from kit.image import engine as engines
from kit.image.build import DEFAULT_BASE
from tools.gate.tracked_files import tracked_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LEFT_OUT = 77  # what automake's test runners call skipped
# On the engine's disk, at the worst moment: the image, the packages' cache beside it, one more image's upper layers.
# Measured with `df` during a build: see docs/SETUP_H100.md.
NEEDED_BYTES = {"current": 19_000_000_000, "reference": 16_000_000_000}
NAME = "mistral-qlora-kit-test"
STAND_IN = f"{NAME}-base:bookworm"
SUITE = "bookworm"
# Found nowhere but where it was planted: in files no image may hold, and in the build's secret. Another one each time,
# because this file is in the image.
CANARY = f"canary-{uuid.uuid4().hex}"
# What runs the tests: they make a small model for the image to train.
PYTHON = PROJECT_ROOT / ".venv" / "bin" / "python"
_PACKAGES = {"dockerd": "docker.io", "debootstrap": "debootstrap", "docker-compose": "docker-compose"}


class LeftOutError(Exception):
    """Why something cannot be tried here."""


def reason_to_leave_out(stack: str, free_bytes: int) -> str:
    """Say why an image is not built; empty where it is."""
    needed = NEEDED_BYTES[stack]
    if free_bytes >= needed:
        return ""
    return f"building it takes up to {needed / 1e9:.0f} GB, and {free_bytes / 1e9:.1f} GB are free"


def install_missing() -> None:
    """Install what an engine takes, in CI, where it can be; otherwise say what is missing.

    Raises:
        LeftOutError: Something is missing and cannot be installed.
    """
    if sys.platform != "linux" or os.getuid() != 0:
        raise LeftOutError("no Docker engine is running, and only root on Linux can start one here")
    missing = [package for program, package in _PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return
    install = ["apt-get", "-qq", "install", "--yes", "--no-install-recommends", *missing]
    if not os.environ.get("CI") or shutil.which("apt-get") is None:
        raise LeftOutError(f"no Docker engine is running, and one lacks {' '.join(missing)}: {' '.join(install)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "-qq", "update"], install):
        if subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=False).returncode:
            raise LeftOutError(f"{' '.join(missing)} could not be installed")


@contextmanager
def running_engine(work: Path) -> Iterator[engines.Engine]:
    """Yield an engine: the one that is there, or one of our own under ``work``, stopped at the end.

    Raises:
        LeftOutError: None can be had.
    """
    engine = engines.probe(PROJECT_ROOT)
    if engine.server:
        yield engine
        return
    install_missing()
    socket = f"unix://{work}/docker.sock"
    command = ["dockerd", "--host", socket, "--data-root", str(work / "data"), "--exec-root", str(work / "exec")]
    with (work / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            [*command, "--pidfile", str(work / "dockerd.pid")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us, who then stop it
        )
    os.environ["DOCKER_HOST"] = socket
    try:
        for _ in range(60):
            engine = engines.probe(PROJECT_ROOT)
            if engine.server or daemon.poll() is not None:
                break
            time.sleep(1)
        if not engine.server:
            last = (work / "dockerd.log").read_text(errors="replace").splitlines()[-3:]
            raise LeftOutError(f"dockerd does not start here: {' / '.join(last)}")
        yield engine
    finally:
        daemon.terminate()
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()


def docker(engine: engines.Engine, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the client that was found."""
    assert engine.client is not None  # noqa: S101 - an engine that answered was asked by a client
    return subprocess.run([engine.client.path, *arguments], capture_output=True, text=True, check=False)


def base_image(engine: engines.Engine, work: Path) -> str:
    """Return a base: the default one where a registry gives it, else a stand-in, plain Debian from debootstrap.

    Raises:
        LeftOutError: Neither can be had.
    """
    if docker(engine, "image", "inspect", DEFAULT_BASE).returncode == 0:
        return DEFAULT_BASE
    if docker(engine, "pull", "--quiet", DEFAULT_BASE).returncode == 0:
        return DEFAULT_BASE
    if os.getuid() != 0 or shutil.which("debootstrap") is None:
        raise LeftOutError(f"{DEFAULT_BASE} cannot be pulled, and a stand-in takes root and debootstrap")
    say(f"{DEFAULT_BASE} cannot be pulled; making a stand-in: debootstrap --variant=minbase {SUITE}")
    folder = work / "base"
    made = subprocess.run(["debootstrap", "--variant=minbase", SUITE, str(folder)], capture_output=True, check=False)
    if made.returncode:
        raise LeftOutError(f"debootstrap failed: {made.stdout.decode(errors='replace').strip()[-200:]}")
    for kept in (*folder.glob("var/cache/apt/archives/*.deb"), *folder.glob("var/lib/apt/lists/*_*")):
        kept.unlink()  # as the official images do
    with subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as archive:
        client = engine.client.path if engine.client else "docker"
        subprocess.run([client, "import", "-", STAND_IN], stdin=archive.stdout, capture_output=True, check=True)
    shutil.rmtree(folder)
    return STAND_IN


def copy_project(target: Path) -> None:
    """Copy what git tracks, and plant what no image may ever hold."""
    for path in tracked_files(PROJECT_ROOT):
        copy = target / path.relative_to(PROJECT_ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    for name in (".env", "scripts/.env", "outputs/run/private.txt", "data/private.jsonl", "models/private.txt"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(f"HF_TOKEN={CANARY}\n", encoding="utf-8")


def secret_bundle(target: Path) -> None:
    """Write a certificate bundle that holds this machine's certificates and the canary."""
    names = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    known = (os.environ.get(name) for name in names)
    found = next((Path(name) for name in known if name and Path(name).is_file()), None)
    system = found or Path("/etc/ssl/certs/ca-certificates.crt")
    certificates = system.read_text(encoding="utf-8") if system.is_file() else ""
    target.write_text(f"# {CANARY}\n{certificates}", encoding="utf-8")


def try_image(engine: engines.Engine, stack: str, work: Path, more: Sequence[str]) -> int:
    """Build one image in the copied project, run its tests, remove it; return the exit code."""
    tree = work / "tree"
    os.environ.update(
        {
            "KIT_IMAGE": NAME,
            "KIT_CACHE": f"{NAME}-cache",
            "KIT_TEST_STACK": stack,
            "KIT_TEST_TREE": str(tree),
            "KIT_TEST_CANARY": CANARY,
            "SSL_CERT_FILE": str(work / "bundle.pem"),
            "HF_TOKEN": CANARY,
            "BUILD_NETWORK": "host",
        }
    )
    # Nothing but the client that can build should be found first.
    if engine.client:
        os.environ["PATH"] = os.pathsep.join((str(Path(engine.client.path).parent), os.environ["PATH"]))
    build = [sys.executable, "scripts/kit", "image", "--stack", stack, "--base-image", os.environ["KIT_TEST_BASE"]]
    build += ["--flash-attn-wheel", "", "--network", "host", "build"]
    tests = [str(PYTHON), "-m", "pytest", "-m", "docker", "tests/docker", *more]
    tests += [f"--basetemp={work / 'pytest'}"]  # pytest's own is shared: other runs clear it
    try:
        for command, folder in ((build, tree), (tests, PROJECT_ROOT)):
            code = subprocess.run(command, cwd=folder, check=False).returncode
            if code:
                return 1
        return 0
    finally:
        docker(engine, "image", "rm", "--force", f"{NAME}:{stack}")
        docker(engine, "volume", "rm", "--force", f"{NAME}-cache")
        docker(engine, "image", "prune", "--force")


def try_all(work: Path, stacks: Sequence[str], more: Sequence[str]) -> dict[str, str]:
    """Try each stack's image; return how each ended: ``passed``, ``failed``, or the reason it was left out."""
    outcomes = dict.fromkeys(stacks, "")
    if not PYTHON.exists():
        return dict.fromkeys(stacks, "its tests make a model with the libraries: make setup")
    try:
        with running_engine(work) as engine:
            os.environ["KIT_TEST_BASE"] = base_image(engine, work)
            copy_project(work / "tree")
            secret_bundle(work / "bundle.pem")
            for stack in stacks:
                free = engines.probe(PROJECT_ROOT).free_bytes
                reason = "" if free is None else reason_to_leave_out(stack, free)
                say(f"── {stack} image{f': left out: {reason}' if reason else ''}", "bold")
                outcomes[stack] = reason or ("failed" if try_image(engine, stack, work, more) else "passed")
                # Only what belongs to nobody else: with an engine of our own, everything goes.
                if "DOCKER_HOST" in os.environ and str(work) in os.environ["DOCKER_HOST"]:
                    docker(engine, "builder", "prune", "--all", "--force")
            docker(engine, "image", "rm", "--force", STAND_IN)
    except LeftOutError as exc:
        return {stack: outcome or str(exc) for stack, outcome in outcomes.items()}
    return outcomes


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = command_parser(__doc__, "run_image_tests.py")
    parser.add_argument("--stack", choices=tuple(NEEDED_BYTES), action="append", help="only this one")
    parser.add_argument("more", nargs="*", help="for pytest")
    options = parser.parse_args(argv)
    work = Path(tempfile.mkdtemp(prefix="kit-image-"))
    try:
        outcomes = try_all(work, options.stack or tuple(NEEDED_BYTES), options.more)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for stack, outcome in outcomes.items():
        known = outcome in {"passed", "failed"}
        say(f"{stack} image: {outcome if known else f'left out: {outcome}'}", "green" if outcome == "passed" else "red")
    if "failed" in outcomes.values():
        return 1
    return 0 if "passed" in outcomes.values() else LEFT_OUT


if __name__ == "__main__":
    run_main(main)
