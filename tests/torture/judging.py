"""A run's folder as a stranger finds it: after a kill, and at the end beside the run nobody touched."""

from __future__ import annotations

import json
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.cli.foreground import SIGNALS
from kit.run_directory import checkpoints
from kit.run_directory.names import METRICS
from kit.run_directory.receipt import read_receipt

if TYPE_CHECKING:
    from pathlib import Path

_STOPS = frozenset({"term", "burst", "call"})


@dataclass(frozen=True)
class Saved:
    """What a run's folder tells: its newest complete checkpoint, and how often it was begun or gone on with."""

    newest: int
    sessions: int

    @classmethod
    def of(cls, output: Path) -> Saved:
        """Look at a folder, which need not be there."""
        found, _ = checkpoints.newest(output / "checkpoints")
        return cls(found.step if found else 0, len((read_receipt(output) or {}).get("sessions", ())))


@dataclass
class Report:
    """What a torture came to.

    Attributes:
        save_steps: Steps between two checkpoints.
        kills: Attempts that were killed, by how.
        kills_at: Of those, how many ended before the first step, in training and while something was written.
        finished: Runs that came to their end and equal the one nobody touched.
        faults: What must not happen, one sentence each.
        most_steps_lost: The most finished steps that had to be trained again after one kill.
    """

    save_steps: int
    kills: Counter[str] = field(default_factory=Counter)
    kills_at: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    faults: list[str] = field(default_factory=list)
    most_steps_lost: int = 0

    @property
    def sigkills(self) -> int:
        """Attempts that were ended by SIGKILL."""
        return self.kills["time"] + self.kills["file"]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {**vars(self), "kills": dict(self.kills), "kills_at": dict(self.kills_at)}

    def judge(self, output: Path, how: str, code: int, before: Saved) -> bool:
        """Look at what a killed attempt left, and enter it; tell whether something is wrong with it.

        Args:
            output: The run's folder.
            how: It was killed: see ``Torture.strike``.
            code: The attempt's exit code, negative for a signal.
            before: What the folder held before the attempt.
        """
        self.kills[how] += 1
        found, damaged = checkpoints.newest(output / "checkpoints")
        newest, done = (found.step if found else 0), _steps_done(output)
        faults = [f"{finding.where} {finding.message}" for finding in damaged]
        if newest < before.newest:
            faults.append(f"step {before.newest} was saved and the newest is {newest}")
        if (output / "run.json").exists() and read_receipt(output) is None:
            faults.append("run.json cannot be read")
        if how in _STOPS:
            signals = SIGNALS if how == "burst" else (signal.SIGTERM,)
            if code not in {end for number in signals for end in (128 + number, -number)}:
                faults.append(f"a signal that stops ended in exit code {code}")
            if code > 0 and done != newest:
                faults.append(f"a signal at step {done} left checkpoint {newest}")
            if (state := (read_receipt(output) or {}).get("state")) not in {None, "interrupted"}:
                faults.append(f"a signal left a receipt that says {state}")
        elif code != -signal.SIGKILL:
            faults.append(f"an attempt ended by itself with exit code {code}")
        self.most_steps_lost = max(self.most_steps_lost, done - newest)
        # A loss is read when it is logged: a few finished steps may not be in the file yet.
        if done - newest > self.save_steps:
            faults.append(f"{done - newest} steps lost, more than since the last save")
        self.faults += [f"{output.name}: {fault}" for fault in faults]
        self.kills_at[_moment(output, before)] += 1
        return bool(faults)


def _moment(output: Path, before: Saved) -> str:
    if [*output.glob(".*.partial"), *(output / "checkpoints").glob(".checkpoint-*")]:
        return "writing"
    after = Saved.of(output)
    # Once the model is built the receipt says so; what it said before this attempt does not count.
    trained = (read_receipt(output) or {}).get("state") == "training" and after.sessions > before.sessions
    return "training" if trained or after.newest > before.newest else "starting"


def _steps_done(output: Path) -> int:
    """Count the steps in ``metrics.jsonl``; a last line that was cut off by a kill does not count."""
    try:
        lines = (output / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)
    except OSError:
        return 0
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def outcome_of(output: Path) -> dict[str, Any]:
    """Return everything that must be the same at the end, byte by byte or number by number."""
    receipt = read_receipt(output) or {}
    metrics = [json.loads(line) for line in (output / METRICS).read_text(encoding="utf-8").splitlines()]
    for line in metrics:
        line.pop("seconds", None)
        line.pop("memory_bytes", None)
    last = output / "checkpoints" / f"checkpoint-{receipt.get('steps')}"
    files = [output / "adapter/adapter_model.safetensors", last / "optimizer.safetensors", last / "state.json"]
    keys = ("state", "steps_done", "tokens", "train_loss", "eval_loss", "adapter_sha256", "adapter_init_sha256")
    return {
        "metrics": metrics,
        "receipt": {key: receipt.get(key) for key in keys},
        "files": [path.read_bytes() for path in files],
        "left": sorted(path.name for path in output.iterdir()),
    }
