"""mistral-common, fetched once into an environment of its own, and the tokenizer folders made of its models."""

from __future__ import annotations

import fcntl
import subprocess
from typing import TYPE_CHECKING

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.stacks.locks import MISTRAL
from tools.setup.tool import ensure_tool
from tools.setup.uv import SetupError

if TYPE_CHECKING:
    from pathlib import Path

HERE = PROJECT_ROOT / "tests" / "mistral"
REFERENCE = PROJECT_ROOT / ".venv-reference" / "bin" / "python"
_PROGRAM = "mistral_common"


def mistral_python() -> Path:
    """Return the Python that has mistral-common, or skip the test with the reason why there is none."""
    cache = PROJECT_ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    with (cache / f"{_PROGRAM}.lock").open("w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # tests run side by side
        try:
            return ensure_tool(PROJECT_ROOT, MISTRAL, _PROGRAM, size="200 MB").with_name("python")
        except SetupError as exc:
            pytest.skip(f"mistral-common is not here and cannot be fetched: {exc.message}")


def write_folders(out: Path) -> Path:
    """Write every generation's tokenizer folder; skip the test where what makes them is not there."""
    if not REFERENCE.exists():
        pytest.skip("there is no .venv-reference: make setup STACK=reference")
    (data,) = mistral_python().parents[1].glob("lib/python*/site-packages/mistral_common/data")
    run(REFERENCE, "folders.py", data, out)
    return out


def run(python: Path, program: str, *arguments: object) -> None:
    """Run one of this folder's programs."""
    command = [str(python), "-W", "ignore", str(HERE / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
