"""Whom a step is measured against besides trl: other trainers, each in an environment of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.variants import Scale, Variant, overrides, rows_of
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.data.batch_order import FILLER, order_batches
from tools.setup.side_environment import side_environment

PROGRAMS = Path(__file__).resolve().parent / "programs"
_CONFIG = PROJECT_ROOT / "configs" / "training_config_h100.yaml"


@dataclass(frozen=True)
class Peer:
    """Somebody else's trainer.

    Attributes:
        name: As the table says it.
        key: Of its environment, ``.cache/bench/KEY``, and its program, ``programs/KEY_peer.py``.
        packages: What is installed for it, pinned; the first is the trainer.
        changes: Overrides of the configuration it is given.
    """

    name: str
    key: str
    packages: tuple[str, ...]
    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def program(self) -> Path:
        """What is run in its environment."""
        return PROGRAMS / f"{self.key}_peer.py"

    def environment(self) -> str:
        """Return the interpreter that has it, installing it where it is not there yet.

        Raises:
            SetupError: It cannot be installed here.
        """
        return side_environment(self.key, self.packages)


# With the kit's torch, so that a difference is the trainer's. It is at its fastest without dropout.
UNSLOTH = ("unsloth==2026.10.7", "unsloth-zoo==2026.10.7", "torch==2.10.0", "transformers==5.17.0", "trl==1.15.0")
PEERS = (
    Peer("Unsloth", "unsloth", UNSLOTH),
    Peer("Unsloth, dropout 0", "unsloth", UNSLOTH, (("lora.lora_dropout", 0.0),)),
)


def version_in(python: str, key: str) -> str:
    """Return the version of a trainer in its environment, from its distribution's metadata."""
    folders = [str(path) for path in Path(python).parent.parent.glob("lib/python*/site-packages")]
    found = next(iter(metadata.distributions(name=key, path=folders)), None)
    return found.version if found else "unknown"


def write_job(peer: Peer, workload: str, scale: Scale, base: Path, folder: Path) -> tuple[Path, Path]:
    """Write all arguments of a peer's program; return the job's path and where the result will be.

    The model, the rows in their order, the batch, the adapter and the optimizer are those of the kit's own defaults.
    """
    changes = {"model.model_name_or_path": str(base), **overrides(Variant(peer.name), workload, scale, on_cuda=True)}
    settings = resolve(_CONFIG, {**changes, **dict(peer.changes)}).settings
    plan = order_batches(settings, rows_of(workload, scale))
    rows = [plan.rows[index] for index in plan.order if index != FILLER]
    result = folder / "result.json"
    job = {
        "variant": peer.name,
        "workload": workload,
        "base": str(base.resolve()),
        "length": scale.length,
        "lora": {
            "r": settings.lora.r,
            "alpha": settings.lora.lora_alpha,
            "dropout": settings.lora.lora_dropout,
            "target_modules": list(settings.lora.target_modules),
        },
        "rows": [{"input_ids": row.input_ids, "labels": row.labels} for row in rows],
        "rows_at_once": settings.training.per_device_train_batch_size,
        "accumulation": settings.training.gradient_accumulation_steps,
        "steps": plan.steps,
        "warm_up": scale.warm_up,
        "timed_tokens": plan.tokens[-1] - plan.tokens[scale.warm_up - 1],
        "optim": settings.training.optim,
        "learning_rate": settings.training.learning_rate,
        "seed": settings.training.seed,
        "result": str(result),
    }
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    return path, result
