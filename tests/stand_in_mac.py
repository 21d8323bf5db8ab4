"""A Mac that is not there: stub uname, sysctl, sw_vers … and uv around a copy of the kit, whose own Python is real.

KIT_BASH=/path/to/bash-3.2 runs its scripts with that bash, which is what macOS has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from kit.cli.interpreter import PROJECT_ROOT
from kit.stacks.locks import STAMP, UV, digest
from tools.setup import uv as uv_tool

if TYPE_CHECKING:
    from pathlib import Path

BASH = os.environ.get("KIT_BASH") or shutil.which("bash")

GIB = 1024**3
MAC = {
    "id": "501",
    "system": "Darwin",
    "machine": "arm64",
    "translated": "0",
    "arm64": "1",
    "macos": "15.1",
    "memory": str(32 * GIB),
    "python": "3 11 arm64 True",
}
STUBS = {
    "id": 'echo "{id}"',
    "uname": 'case "$1" in -m) echo "{machine}" ;; *) echo "{system}" ;; esac',
    # What a program built for an old macOS is told, unless it asks for the truth.
    "sw_vers": """case "$SYSTEM_VERSION_COMPAT" in 0) echo "{macos}" ;; *) echo 10.16 ;; esac""",
    "sysctl": """case "$2" in
sysctl.proc_translated) echo "{translated}" ;;
hw.optional.arm64) echo "{arm64}" ;;
hw.memsize) echo "{memory}" ;;
machdep.cpu.brand_string) echo "Apple M4" ;;
*) exit 1 ;;
esac""",
    "vm_stat": 'printf "Mach Virtual Memory Statistics: (page size of 16384 bytes)\\nPages free: 1200000.\\n"',
    "system_profiler": """echo '{{"SPDisplaysDataType": [{{"sppci_cores": "10"}}]}}'""",
    "xcode-select": "exit 2",
    "caffeinate": 'shift && exec "$@"',
    "python3.11": """case "$2" in *-c*) [ -z "{python}" ] && exit 1; echo "{python}"; exit ;; esac
PYTHONPATH="{shim}" exec "{real_python}" "$@\"""",
}
# What the kit's Python sees of the stand-in; waiting for a network that stubs cut off would only take time.
SHIM = """import platform, time
platform.system = lambda: "Darwin"
platform.machine = lambda: "arm64"
platform.mac_ver = lambda *_: ("{macos}", ("", "", ""), "arm64")
time.sleep = lambda _: None
"""
UV_STUB = """#!/bin/sh
echo "$1" >>"{log}"
case "$1" in
venv)
  for folder; do :; done
  mkdir -p "$folder/bin" && cat >"$folder/bin/python" <<'EOF'
#!/bin/sh
case "$1" in
scripts/validate_environment.py) echo "validate $*" >>"{log}"; exit "${{VALIDATE:-0}}" ;;
scripts/kit) echo "python $*" >>"{log}"; exit ;;
esac
exec "{real_python}" "$@"
EOF
  chmod +x "$folder/bin/python" ;;
pip)
  case "$UV_STUB" in
  offline) echo "error: dns error" >&2; exit 2 ;;
  once)
    case "$*" in *--dry-run*) touch "{log}.failed"; echo "error: dns error" >&2; exit 2 ;; esac
    [ -e "{log}.failed" ] || exit 2 ;;
  wait) touch "{log}.waiting"; exec sleep 60 ;;
  esac ;;
esac
"""
NEEDED_TOOLS = ("awk", "cat", "chmod", "dirname", "env", "ls", "make", "mkdir", "rm", "sed", "sh", "sleep", "touch")


class Mac:
    """A copy of the kit beside the tools of a Mac that is not there."""

    def __init__(self, folder: Path, **facts: str) -> None:
        self.folder, self.facts = folder, {**MAC, **facts}
        self.root = folder / "a project with spaces"
        self.bin, self.log = folder / "bin", folder / "log"
        self.environment = self.root / ".venv-m4"
        self.stamp = self.environment / STAMP
        self._copy_the_kit()
        self._make_tools()

    def _copy_the_kit(self) -> None:
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("scripts", "tools", "locks", "configs"):
            shutil.copytree(PROJECT_ROOT / name, self.root / name, ignore=ignore)
        for name in ("setup_m4.sh", "requirements-m4.txt", "Makefile"):
            shutil.copy(PROJECT_ROOT / name, self.root)
        uv = self.root / ".cache" / "uv" / "bin" / "uv"
        uv.parent.mkdir(parents=True)
        _write_program(uv, UV_STUB.format(log=self.log, real_python=uv_tool.base_python()))
        (self.root / ".cache" / "uv" / STAMP).write_text(digest((self.root / UV.target).read_text()))

    def _make_tools(self) -> None:
        shim = self.folder / "shim"
        shim.mkdir()
        (shim / "sitecustomize.py").write_text(SHIM.format(**self.facts))
        self.bin.mkdir()
        for name in NEEDED_TOOLS:
            (self.bin / name).symlink_to(shutil.which(name) or name)
        for name, body in STUBS.items():
            text = body.format(**self.facts, shim=shim, real_python=uv_tool.base_python())
            _write_program(self.bin / name, f"#!/bin/sh\n{text}\n")

    def command(self, *arguments: str) -> list[str]:
        return [str(BASH), str(self.root / "setup_m4.sh"), *arguments]

    def variables(self, **more: str) -> dict[str, str]:
        return {"PATH": str(self.bin), "HOME": str(self.folder), "TERM": "xterm", **more}

    def run(self, *arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=cwd or self.root,
            env=self.variables(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def did(self) -> list[str]:
        """What was really done, in order: venv, pip, validate."""
        return [line.split()[0] for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def snapshot(self) -> dict[Path, tuple[int, int]]:
        found = {path: path.lstat() for path in self.folder.rglob("*") if not path.is_dir() and path != self.log}
        return {path: (status.st_size, status.st_mtime_ns) for path, status in found.items()}


def _write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
