"""An environment of its own for somebody else's tool, made once and kept under ``.cache/bench``."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from kit.cli.console import say
from kit.cli.interpreter import PROJECT_ROOT
from tools.setup.uv import diagnose, ensure_uv, tool_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDE_ENVIRONMENTS = PROJECT_ROOT / ".cache" / "bench"


def side_environment(name: str, packages: Sequence[str]) -> str:
    """Return the interpreter of an environment that holds some packages, making it where it is not there yet.

    Args:
        name: Of its folder.
        packages: Pinned; the first is what it is for.

    Raises:
        SetupError: It cannot be installed here.
    """
    folder, wanted = SIDE_ENVIRONMENTS / name, " ".join(packages)
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return str(python)
    uv = str(ensure_uv(PROJECT_ROOT))
    say(f"Installing {packages[0]} (several GB) → {folder.relative_to(PROJECT_ROOT)}")
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [uv, "venv", "--quiet", "--python", "3.11", str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(python), *packages],
    ):
        done = subprocess.run(command, env=tool_environment(os.environ), capture_output=True, text=True, check=False)
        if done.returncode:
            raise diagnose(done.stdout + done.stderr, f"{packages[0]} could not be installed")
    stamp.write_text(wanted, encoding="utf-8")
    return str(python)
