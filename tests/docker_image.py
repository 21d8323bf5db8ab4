"""A built image, and the ways the tests run it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from kit.image.container import Service, compose_variables, run_command

if TYPE_CHECKING:
    from pathlib import Path

# Nobody's id on the machines this runs on, so that ownership says who wrote a file.
UID = GID = 4321
DEMO = "configs/training_config_demo.yaml"


@dataclass(frozen=True)
class Image:
    """One built image, the project it was built from, and the ways to run it."""

    docker: str
    compose: tuple[str, ...]
    name: str
    stack: str
    tree: Path

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.stack}"

    def call(self, *arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
        """Call the docker client."""
        options: dict[str, object] = {"capture_output": True, "text": True, "timeout": 600, **more}
        return subprocess.run([self.docker, *arguments], cwd=self.tree, check=False, **options)  # type: ignore[call-overload,no-any-return]

    def options(self) -> list[str]:
        """How a container is confined here, as compose.yaml does it."""
        mounts = [f"--volume={self.tree}/{name}:/kit/{name}" for name in ("data", "models", "outputs")]
        mounts.append("--volume=/cache")
        confined = ["--read-only", "--tmpfs=/tmp:exec,mode=1777", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        return [*confined, "--network=none", f"--user={UID}:{GID}", *mounts]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the image in a container."""
        return self.call("run", "--rm", *self.options(), self.tag, *arguments)

    def python(self, code: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run Python code in a container, with the kit importable."""
        container = [*self.options(), "--env=PYTHONPATH=scripts", *options]
        return self.call("run", "--rm", *container, self.tag, "python", "-c", code)

    def service(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a service of compose.yaml."""
        if not self.compose:
            pytest.skip("compose is not installed")
        command = run_command(self.tree, self.compose, Service(name, arguments))
        env = {**os.environ, **compose_variables(self.name, self.stack, (UID, GID))}
        return subprocess.run(command, cwd=self.tree, env=env, capture_output=True, text=True, check=False, timeout=600)
