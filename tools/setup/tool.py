"""A pinned tool in an environment of its own under .cache, installed by uv from its hash-locked file.

Standard library only, and for Python 3.9 on.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from kit.cli.console import say
from kit.stacks.locks import STAMP, digest
from tools.setup.uv import base_python, ensure_uv, run_uv

if TYPE_CHECKING:
    from pathlib import Path

    from kit.stacks.locks import Lock


def ensure_tool(root: Path, lock: Lock, program: str, *, size: str) -> Path:
    """Return a tool's program, installing it where it is not there, or was installed from another lock.

    Raises:
        SetupError: It cannot be installed, with the reason and the fix.
    """
    home = root / ".cache" / program
    wanted = digest((root / lock.target).read_text(encoding="utf-8"))
    stamp = home / STAMP
    if (home / "bin" / program).exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return home / "bin" / program
    uv = ensure_uv(root)
    say(f"Fetching {program} (about {size}) → .cache/{program}")
    shutil.rmtree(home, ignore_errors=True)
    # The locks are for 3.11 and newer, and a command that needs nothing installed may run on an older one.
    python = base_python() if sys.version_info >= (3, 11) else "3.11"
    run_uv(uv, ["venv", "--quiet", "--no-project", "--python", python, str(home)], f"uv could not create {home}")
    sync = ["pip", "sync", "--quiet", "--require-hashes", "--only-binary", ":all:"]
    run_uv(
        uv,
        [*sync, "--python", str(home / "bin" / "python"), str(root / lock.target)],
        f"uv could not install {program}",
    )
    stamp.write_text(wanted, encoding="utf-8")
    return home / "bin" / program
