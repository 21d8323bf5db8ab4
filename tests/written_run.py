"""Runs written by hand: a folder as training leaves it, in whatever state a test needs."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

RESOLVED = resolve(PROJECT_ROOT / "configs/training_config_demo.yaml")
TRAIN = PROJECT_ROOT / "data/sample/train.jsonl"


def falling(step: int) -> float:
    """A loss that falls from 3 towards 0.5."""
    return 0.5 + 2.5 * math.exp(-step / 30)


def write_run(
    folder: Path,
    *,
    done: int = 100,
    loss: Callable[[int], float | None] = falling,
    evaluations: Sequence[tuple[int, float]] = ((50, 1.1), (100, 0.7)),
    line: dict[str, Any] | None = None,
    **facts: Any,
) -> Path:
    """Write ``run.json`` and ``metrics.jsonl``.

    Args:
        folder: The run's folder.
        done: Steps that were done.
        loss: The loss of a step; None leaves it out.
        evaluations: Step and validation loss.
        line: Added to every line of a step.
        facts: Of the receipt, over what a finished run has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    receipt = {
        "schema_version": 1,
        "state": "finished",
        "started_at": "2024-05-01T14:29:26+00:00",
        "ended_at": "2024-05-01T14:32:35+00:00",
        "run_name": folder.name,
        "argv": ["configs/training_config_demo.yaml"],
        "config": RESOLVED.settings.as_mapping(),
        "origins": {key: f"configs/training_config_demo.yaml:{n}" for n, key in enumerate(RESOLVED.origins, 1)},
        "seed": 42,
        "machine": {
            "system": "Linux",
            "arch": "x86_64",
            "cpu_model": "Some CPU",
            "cpu_count": 2,
            "nvidia": {"gpus": []},
        },
        "stack": "current",
        "python": "3.11.7",
        "packages": {"torch": "2.10.0", "peft": "0.21.2"},
        "locks": {"current-linux-x86_64.txt": "0" * 64},
        "git_revision": "1234567890abcdef",
        "git_dirty": False,
        "platform": "cpu",
        "data": [{"path": "gone.jsonl", "sha256": "f" * 64, "rows": 40, "tokens": 4000, "trainable_tokens": 900}],
        "steps": done,
        "peak_memory_bytes": 1_250_000_000,
        "seconds": 61.5,
        **facts,
    }
    (folder / "run.json").write_text(json.dumps(receipt), encoding="utf-8")
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step in range(1, done + 1):
            values: dict[str, Any] = {
                "step": step,
                "epoch": round(step / 40, 4),
                "learning_rate": 2e-4 * (1 - step / (done + 1)),
                "grad_norm": 1.0 + 1 / step,
                "tokens": 1000 * step,
                "seconds": 0.5 * step,
                **(line or {}),
            }
            if (value := loss(step)) is not None:
                values["loss"] = value
            file.write(json.dumps(values) + "\n")
            for at, eval_loss in evaluations:
                if at == step:
                    file.write(json.dumps({"step": at, "eval_loss": eval_loss}) + "\n")
    return folder
