"""What must not be in a tracked file: a package registry's address, a path of one machine, a megabyte of anything.

The locks name no registry, so that they install from any mirror; nothing names a machine, so that it runs on all.
"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, ok

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_FILE_BYTES = 1_000_000

# Brackets inside the names, so that this file does not find itself.
_FORBIDDEN = (
    ("a package registry's address", re.compile(r"\b(?:py[p]i\.org|python[h]osted\.org|download\.py[t]orch\.org)")),
    ("a path of one machine", re.compile(r"(?<![\w.$}~-])/(?:work|root|home/\w+|Users/\w+)/[\w./-]*")),
)


def tracked_files(root: Path, *patterns: str) -> list[Path]:
    """Return the files git tracks, or would if they were added, that exist; relative to the project."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    names = sorted({name for name in listed.stdout.split("\0") if name})
    return [root / name for name in names if (root / name).is_file()]


def shell_scripts(root: Path) -> list[Path]:
    """Return every shell script: by its name or by its first line."""
    scripts = []
    for path in tracked_files(root):
        with path.open("rb") as file:
            first_line = file.readline(80)
        if path.suffix == ".sh" or re.match(rb"#!.*\b(?:ba|da)?sh\b", first_line):
            scripts.append(path)
    return scripts


def findings_in(name: str, content: bytes) -> list[Finding]:
    """Judge one file's content; ``name`` is its path relative to the project."""
    if len(content) > LARGEST_FILE_BYTES:
        return [
            error(
                "files.too_large",
                f"{len(content) / 1e6:.1f} MB, and 1 MB is allowed",
                "make it smaller, or have a script fetch or generate it",
                name,
            )
        ]
    found = []
    for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
        for what, pattern in _FORBIDDEN:
            match = pattern.search(line)
            if match:
                fix = "take it out; mirrors and folders are the machine's own business"
                found.append(error("files.not_portable", f"{what}: {match.group()!r}", fix, f"{name}:{number}"))
    return found


def check_tracked_files(root: Path) -> list[Finding]:
    """Judge every tracked file."""
    paths = tracked_files(root)
    findings = [
        finding for path in paths for finding in findings_in(path.relative_to(root).as_posix(), path.read_bytes())
    ]
    return findings or [ok("files", f"{len(paths)} files name no registry and no machine, and none is over 1 MB")]
