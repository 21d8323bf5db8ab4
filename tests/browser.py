"""A browser for tests that look at a page: playwright stands in .venv-dev, Chromium is the system's."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from kit.cli.interpreter import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

_PYTHON = PROJECT_ROOT / ".venv-dev" / "bin" / "python"


def browser_missing() -> str:
    """Say why no page can be looked at here; nothing where one can."""
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        return "there is no Chromium: apt-get install chromium"
    if not _PYTHON.exists():
        return "there is no .venv-dev: make check"
    found = subprocess.run([str(_PYTHON), "-c", "import playwright"], capture_output=True, check=False)
    return "" if found.returncode == 0 else "there is no playwright in .venv-dev: make check"


def look_at(page: Path) -> dict[str, Any]:
    """Open a page at several widths in both colour schemes and return what was seen."""
    command = [str(_PYTHON), str(PROJECT_ROOT / "tests" / "browser_look.py"), str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))
