"""Whom the kit is measured against, each with its own environment, made once and kept under ``.cache/bench``."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.setup.side_environment import SIDE_ENVIRONMENTS, side_environment
from tools.setup.uv import SetupError

PROGRAMS = Path(__file__).resolve().parent / "programs"
CACHE = SIDE_ENVIRONMENTS


@dataclass(frozen=True)
class Tool:
    """Somebody's way to prepare data.

    Attributes:
        name: As the table says it.
        program: What is run.
        packages: What is installed for it, pinned; none where this environment has it.
    """

    name: str
    program: str
    packages: tuple[str, ...] = ()


# Its newest torch and torchaudio are built for two versions of CUDA, and refuse each other; these agree.
LLAMAFACTORY = ("llamafactory==0.9.5", "torch==2.10.0", "torchaudio==2.10.0", "torchvision==0.25.0")
TOOLS = {
    "ours": Tool("this kit", "ours.py"),
    "whole": Tool("this kit, all of `make data`", "whole.py"),
    "first_step": Tool("this kit, `make train` to its first step", "first_step.py"),
    "trl": Tool("TRL", "trl_peer.py"),
    "llamafactory": Tool("LLaMA-Factory", "llamafactory_peer.py", LLAMAFACTORY),
}


def python_for(key: str) -> str:
    """Return the interpreter that has a tool, setting its environment up where it is not there yet.

    Raises:
        SetupError: It cannot be installed here.
    """
    tool = TOOLS[key]
    if not tool.packages:
        return sys.executable
    return side_environment(key, tool.packages)


def version_of(key: str, python: str) -> str:
    """Return the version of what is measured."""
    package = {"trl": "trl", "llamafactory": "llamafactory"}.get(key)
    if package is None:
        return ""
    program = f"from importlib import metadata; print(metadata.version({package!r}))"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    return done.stdout.strip()


__all__ = ["CACHE", "PROGRAMS", "TOOLS", "SetupError", "Tool", "python_for", "version_of"]
