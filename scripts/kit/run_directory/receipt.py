"""``run.json``: what was trained, from what, with what, and how it went.

Written before the first step, updated at every checkpoint and completed at the end, each time aside and then renamed,
so that a reader never sees half of one. A run that was stopped and resumed has one receipt, whose ``sessions`` tell
each start, resume and end. Environment variables carry secrets: none is written but the few that choose kernels.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kit.files.json_files import object_or_none, parse, render, without_nan, write_json
from kit.files.numbers import finite, listed
from kit.files.regular_files import read_text
from kit.run_directory.names import RECEIPT
from kit.run_directory.receipt_keys import LAST_STEP, top_level

SCHEMA_VERSION = 1

# Entries of a change say from which step on; one that was made after the step that is gone on from was never trained.
_CHANGES = ("changes_allowed", "compute_changes")
_WANDB_ID = re.compile(r"[0-9a-f]{8}\Z")


class Receipt:
    """The receipt of one run, kept on disk as it grows."""

    def __init__(
        self,
        run_directory: Path,
        *,
        earlier: Mapping[str, Any] | None = None,
        from_step: int = 0,
        energy: Callable[[], float | None] = lambda: None,
        **facts: Any,
    ) -> None:
        """Start a receipt, or continue the ``earlier`` one from ``from_step``, and write it.

        ``energy`` reads the joules this session's device has used; None without a counter.
        """
        self.path = run_directory / RECEIPT
        self._started = time.monotonic()
        self._writing = threading.RLock()  # a stall is written down by the thread that noticed it
        earlier = earlier or {}
        sessions = _sessions_of(earlier)
        self._seconds_before = sum(session["seconds"] for session in sessions)
        self._joules_before = [finite(session.get("energy_joules")) for session in sessions]
        self._energy = energy
        now = _now()
        session = {"started_at": now, "argv": facts.get("argv"), "from_step": from_step, "state": "running"}
        self.facts: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "state": "started",
            "started_at": sessions[0]["started_at"] if sessions else now,
            **carried_over(earlier, from_step),
            **facts,
            "sessions": [*sessions, {**session, "seconds": 0.0, "energy_joules": None}],
        }
        if sessions:
            self._add_up()
        run_directory.mkdir(parents=True, exist_ok=True)
        self.write()

    def update(self, **facts: Any) -> None:
        """Add facts and write."""
        with self._writing:
            self.facts.update(facts)
            session = self.facts["sessions"][-1]
            session["seconds"] = round(time.monotonic() - self._started, 3)
            session["to_step"] = self.facts.get("steps_done", session["from_step"])
            session["energy_joules"] = self._energy()
            self._add_up()
            self.write()

    def _add_up(self) -> None:
        session = self.facts["sessions"][-1]
        self.facts["seconds"] = round(self._seconds_before + session["seconds"], 3)
        known = [*self._joules_before, session["energy_joules"]]
        # A part that nobody measured makes the whole unknown.
        self.facts["energy_joules"] = None if None in known else round(sum(known), 3)

    def finish(self, state: str, **facts: Any) -> None:
        """Complete the receipt with ``finished``, ``interrupted`` or ``failed``."""
        ended = {"state": state, "ended_at": _now()}
        with self._writing:
            why = {"error": facts["error"]} if "error" in facts else {}
            self.facts["sessions"][-1].update(ended | why)
            self.update(**ended, **facts)

    def write(self) -> None:
        """Write aside, flush to the disk, rename; with a hash over all of it, so that a changed bit is found."""
        write_json(self.path, sealed(self.facts))


def carried_over(earlier: Mapping[str, Any], from_step: int) -> dict[str, Any]:
    """Return what a run resumed from a step keeps of its earlier receipt: see ``receipt_keys``."""
    kept: dict[str, Any] = {}
    for key in ("bad_losses", "stalls", *_CHANGES):
        entries = [entry for entry in listed(earlier.get(key)) if isinstance(entry, dict)]
        if key in _CHANGES:
            entries = [entry for entry in entries if isinstance(at := entry.get("step"), int) and at < from_step]
        if entries:
            kept[key] = entries
    if _WANDB_ID.match(str(earlier.get("wandb_id"))):
        kept["wandb_id"] = earlier["wandb_id"]
    if from_step and earlier.get("resumed_inexactly") is True:
        kept["resumed_inexactly"] = True
    if from_step and earlier.get("steps_done") == from_step:
        kept |= {key: earlier[key] for key in top_level(LAST_STEP) if key in earlier}
    return kept


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _sessions_of(earlier: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return an earlier receipt's sessions; of a receipt that was changed, those that still are some."""
    recorded = earlier.get("sessions")
    whole = [session for session in recorded if _is_session(session)] if isinstance(recorded, list) else []
    return [_ended(session) for session in whole]


def _is_session(session: Any) -> bool:
    if not isinstance(session, dict):
        return False
    seconds = session.get("seconds")
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool) and abs(seconds) < 1e12  # noqa: PLR2004
    return is_number and isinstance(session.get("started_at"), str) and isinstance(session.get("state"), str)


def _ended(session: dict[str, Any]) -> dict[str, Any]:
    """Close what could not close itself: its last known moment is all there is."""
    return {**session, "state": "killed"} if session["state"] == "running" else session


def sealed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a receipt's facts with the hash over all of them: what ``is_untouched`` holds a file to."""
    return {**facts, "sha256": _digest(facts)}


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(without_nan(facts), sort_keys=True, default=str).encode()).hexdigest()


def is_untouched(content: bytes) -> bool:
    """Tell whether a ``run.json`` is, byte for byte, what the kit wrote."""
    try:
        facts = parse(content)
        seal = facts.pop("sha256")
        return bool(seal == _digest(facts) and render({**facts, "sha256": seal}) == content)
    except (ValueError, KeyError, AttributeError, TypeError):
        return False


def read_receipt(run_directory: Path) -> dict[str, Any] | None:
    """Read a run's receipt; None where there is none that can be read."""
    return object_or_none(run_directory / RECEIPT)


def loss_trace_sha256(metrics: Path) -> str:
    """Hash every step's loss and every evaluation of ``metrics.jsonl``: equal hashes, equal curves to the last bit."""
    digest = hashlib.sha256()
    for line in map(json.loads, read_text(metrics).splitlines()):
        digest.update(json.dumps([line["step"], line.get("loss"), line.get("eval_loss")]).encode())
    return digest.hexdigest()
