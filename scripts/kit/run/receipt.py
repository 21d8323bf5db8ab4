"""``run.json``: what was trained, from what, with what, and how it went.

Written before the first step, updated at every checkpoint and completed at the end, each time aside and then renamed,
so that a reader never meets half of one. A run that was stopped and resumed has one receipt, whose ``sessions`` tell
each start, resume and end. Environment variables are never written: they carry secrets.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

from kit.audit.histogram import histogram
from kit.audit.training_file import lengths_of
from kit.data.dataset import EncodedFile, file_sha256
from kit.interpreter import PROJECT_ROOT
from kit.run.process import this_process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kit.config.settings import Settings
    from kit.machine.facts import Machine
    from kit.stack import Stack

SCHEMA_VERSION = 1


class Receipt:
    """The receipt of one run, kept on disk as it grows."""

    def __init__(
        self, run_directory: Path, *, earlier: Mapping[str, Any] | None = None, from_step: int = 0, **facts: Any
    ) -> None:
        """Start a receipt, or go on with an earlier one, and write it.

        Args:
            run_directory: The run's folder; made where it is missing.
            earlier: The receipt of the run that is gone on with.
            from_step: The step it goes on from.
            facts: What is known before the first step.
        """
        self.path = run_directory / "run.json"
        self._started = time.monotonic()
        self._writing = threading.RLock()  # a stall is written down by the thread that noticed it
        earlier = earlier or {}
        sessions = [_ended(session) for session in earlier.get("sessions", [])]
        self._seconds_before = sum(session["seconds"] for session in sessions)
        now = _now()
        session = {"started_at": now, "argv": facts.get("argv"), "from_step": from_step, "state": "running"}
        self.facts: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "state": "started",
            "started_at": sessions[0]["started_at"] if sessions else now,
            **facts,
            "sessions": [*sessions, {**session, "seconds": 0.0}],
        }
        run_directory.mkdir(parents=True, exist_ok=True)
        self.write()

    def update(self, **facts: Any) -> None:
        """Add facts and write."""
        with self._writing:
            self.facts.update(facts)
            session = self.facts["sessions"][-1]
            session["seconds"] = round(time.monotonic() - self._started, 3)
            session["to_step"] = self.facts.get("steps_done", session["from_step"])
            self.facts["seconds"] = round(self._seconds_before + session["seconds"], 3)
            self.write()

    def finish(self, state: str, **facts: Any) -> None:
        """Complete the receipt.

        Args:
            state: ``finished``, ``interrupted`` or ``failed``.
            facts: What is known only now.
        """
        ended = {"state": state, "ended_at": _now()}
        with self._writing:
            self.facts["sessions"][-1].update(ended)
            self.update(**ended, **facts)

    def write(self) -> None:
        """Write aside, flush to the disk, rename; with a hash over all of it, so that a changed bit is found."""
        write_json(self.path, {**self.facts, "sha256": _digest(self.facts)})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _ended(session: dict[str, Any]) -> dict[str, Any]:
    """Close what could not close itself: its last known moment is all there is."""
    return {**session, "state": "killed"} if session["state"] == "running" else session


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_without_nan(facts), sort_keys=True, default=str).encode()).hexdigest()


def is_untouched(content: bytes) -> bool:
    """Tell whether a ``run.json`` is, byte for byte, what the kit wrote."""
    try:
        facts = json.loads(content)
        sealed = facts.pop("sha256")
        return bool(sealed == _digest(facts) and _render({**facts, "sha256": sealed}) == content)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return False


def _render(data: Any) -> bytes:
    text = json.dumps(_without_nan(data), indent=2, ensure_ascii=False, default=str, allow_nan=False)
    # A name that is not UTF-8 comes as lone surrogates, which JSON writes with a backslash.
    return f"{text}\n".encode(errors="backslashreplace")


def read_receipt(run_directory: Path) -> dict[str, Any] | None:
    """Read a run's receipt; None where there is none that can be read."""
    try:
        content = json.loads((run_directory / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, data: Any) -> None:
    """Replace a JSON file in one step: a reader sees the old one or the new one, never a part.

    What JSON cannot say (NaN, infinity) is written as null.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(_render(data))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _without_nan(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: _without_nan(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_without_nan(value) for value in data]
    return data


def loss_trace_sha256(metrics: Path) -> str:
    """Hash every step's loss and every evaluation of ``metrics.jsonl``: equal hashes, equal curves to the last bit."""
    digest = hashlib.sha256()
    for line in map(json.loads, metrics.read_text(encoding="utf-8").splitlines()):
        digest.update(json.dumps([line["step"], line.get("loss"), line.get("eval_loss")]).encode())
    return digest.hexdigest()


def describe_data(files: Sequence[EncodedFile], max_seq_length: int) -> list[dict[str, Any]]:
    """Name each data file with its hash, its counts and how long its rows are, in tokens before the cut."""
    return [_describe_file(file, lengths_of(file), max_seq_length) for file in files]


def _describe_file(file: EncodedFile, lengths: dict[int, int], max_seq_length: int) -> dict[str, Any]:
    return {
        "path": str(file.path),
        "sha256": file.sha256,
        "rows": len(file.rows),
        "tokens": file.tokens,
        "trainable_tokens": file.trainable_tokens,
        "length_histogram": asdict(histogram(lengths)),
        "truncated_rows": sum(rows for length, rows in lengths.items() if length > max_seq_length),
    }


def describe_code() -> dict[str, Any]:
    """Name the code: the git revision, and whether anything differs from it; None where git does not say.

    An image holds no git: it was built with its revision in ``KIT_REVISION``.
    """
    revision = _git("rev-parse", "HEAD")
    if revision is None and os.environ.get("KIT_REVISION"):
        return {"git_revision": os.environ["KIT_REVISION"], "git_dirty": None}
    changes = None if revision is None else _git("status", "--porcelain", "--untracked-files=no")
    code: dict[str, Any] = {"git_revision": revision, "git_dirty": None if changes is None else bool(changes)}
    if changes:
        difference = _git("diff", "--no-ext-diff", "--binary", "HEAD")
        code["git_diff_sha256"] = difference and hashlib.sha256(difference.encode(errors="replace")).hexdigest()
    return code


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(PROJECT_ROOT), *arguments], capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()


def describe_stack(stack: Stack) -> dict[str, Any]:
    """Name the stack, every installed distribution, and the lock this environment was installed from."""
    installed: dict[str, str] = {}
    for dist in metadata.distributions():
        # In the order of sys.path: the first is what an import finds. setuptools, once imported, puts old copies of
        # other packages at the end of the path.
        installed.setdefault(dist.metadata["Name"] or "?", dist.version or "?")
    return {
        "stack": stack.name,
        "python": sys.version.split()[0],
        "packages": dict(sorted(installed.items())),
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
