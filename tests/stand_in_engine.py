"""A GPU host that is not there: stub docker and nvidia-smi that answer what they are asked and write down the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from kit.cli.interpreter import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

_INFO = json.dumps({"ServerVersion": "28.2.2", "Runtimes": {"nvidia": {}}})
_DOCKER = f"""[ "$1" = --version ] && echo "Docker version 28.2.2"
[ "$1" = info ] && echo '{_INFO}'
if [ "$1" = image ]; then
  cat "{{folder}}/labels" 2>/dev/null
fi
case "$*" in *version | info* | image*) exit 0 ;; esac
echo "$*" >> "{{folder}}/calls"
exit "${{FAILS:-0}}"
"""


class EngineHost:
    """Tools first on PATH, and the calls they got."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir(parents=True)
        self.stub("docker", _DOCKER.replace("{folder}", str(folder)))
        self.stub("nvidia-smi", "echo '535.104.05, NVIDIA H100 80GB HBM3'")

    def stub(self, name: str, body: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.bin / name).chmod(0o755)

    def variables(self, **more: str) -> dict[str, str]:
        path = f"{self.bin}{os.pathsep}/usr/bin{os.pathsep}/bin"
        return {"PATH": path, "HOME": str(self.folder), "HF_TOKEN": "hf_x", **more}

    def run(self, *command: str, cwd: Path = PROJECT_ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
        env = self.variables(**variables)
        return subprocess.run(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    def image(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `kit image`."""
        return self.run(sys.executable, str(PROJECT_ROOT / "scripts" / "kit"), "image", *arguments, **variables)

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []
