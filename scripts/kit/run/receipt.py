"""``run.json``: what was trained, from what, with what, and how it went.

Written before the first step and completed at the end, each time aside and then renamed, so that a reader never meets
half of one. Environment variables are never written: they carry secrets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

from kit.data.dataset import EncodedFile, file_sha256
from kit.interpreter import PROJECT_ROOT
from kit.run.liveness import this_process

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kit.config.settings import Settings
    from kit.machine.facts import Machine
    from kit.stack import Stack

SCHEMA_VERSION = 1


class Receipt:
    """The receipt of one run, kept on disk as it grows."""

    def __init__(self, run_directory: Path, **facts: Any) -> None:
        """Start a receipt and write it.

        Args:
            run_directory: The run's folder; made where it is missing.
            facts: What is known before the first step.
        """
        self.path = run_directory / "run.json"
        self._started = time.monotonic()
        self.facts: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "state": "started",
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            **facts,
        }
        run_directory.mkdir(parents=True, exist_ok=True)
        self.write()

    def update(self, **facts: Any) -> None:
        """Add facts and write."""
        self.facts.update(facts)
        self.write()

    def finish(self, state: str, **facts: Any) -> None:
        """Complete the receipt.

        Args:
            state: ``finished``, ``interrupted`` or ``failed``.
            facts: What is known only now.
        """
        self.update(
            state=state,
            ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self._started, 3),
            **facts,
        )

    def write(self) -> None:
        """Write aside, flush to the disk, rename."""
        write_json(self.path, self.facts)


def write_json(path: Path, data: Any) -> None:
    """Replace a JSON file in one step: a reader sees the old one or the new one, never a part."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # A name that is not UTF-8 comes as lone surrogates, which JSON writes with a backslash.
        with aside.open("w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(data, file, indent=2, ensure_ascii=False, default=str)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def describe_data(files: Sequence[EncodedFile]) -> list[dict[str, Any]]:
    """Name each data file with its hash and counts."""
    return [
        {
            "path": str(file.path),
            "sha256": file.sha256,
            "rows": len(file.rows),
            "tokens": file.tokens,
            "trainable_tokens": file.trainable_tokens,
        }
        for file in files
    ]


def describe_code() -> dict[str, Any]:
    """Name the code: the git revision, and whether anything differs from it; None where git does not say.

    An image holds no git: it was built with its revision in ``KIT_REVISION``.
    """
    revision = _git("rev-parse", "HEAD")
    if revision is None and os.environ.get("KIT_REVISION"):
        return {"git_revision": os.environ["KIT_REVISION"], "git_dirty": None}
    changes = None if revision is None else _git("status", "--porcelain", "--untracked-files=no")
    return {"git_revision": revision, "git_dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(PROJECT_ROOT), *arguments], capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()


def describe_stack(stack: Stack) -> dict[str, Any]:
    """Name the stack, every installed distribution, and the lock this environment was installed from."""
    installed = sorted({(dist.metadata["Name"] or "?", dist.version or "?") for dist in metadata.distributions()})
    return {
        "stack": stack.name,
        "python": sys.version.split()[0],
        "packages": dict(installed),
        "locks": {path.name: file_sha256(path) for path in sorted((PROJECT_ROOT / "locks").glob("*.txt"))},
    }


def describe_before(
    argv: Sequence[str], settings: Settings, origins: dict[str, str], machine: Machine, stack: Stack
) -> dict[str, Any]:
    """Collect what is known before the first step."""
    return {
        "run_name": settings.training.run_name,
        "argv": list(argv),
        "process": this_process(),
        "config": settings.as_mapping(),
        "origins": origins,
        "seed": settings.training.seed,
        "machine": asdict(machine),
        **describe_stack(stack),
        **describe_code(),
    }
