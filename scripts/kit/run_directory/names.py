"""What a run directory holds, by name: each writer takes its name from here. Imports no machine-learning library."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from kit.files.json_files import object_or_none
from kit.model.base import CONFIG, INDEX, OPTIONAL, WHOLE

RECEIPT, METRICS, STALLED, LOG = "run.json", "metrics.jsonl", "stalled.txt", "log.txt"
ADAPTER, CHECKPOINTS, MERGED, CURVES = "adapter", "checkpoints", "merged", "wandb"
REPORT_PAGE, REPORT_PICTURE, DEMO = "report.html", "report.png", "demo.json"
HANDED_ON = "handed_on.json"  # beside wandb's log: of which run there, and how many lines
# Of a rerun: of which run it is one, and in the end the verdict; and what it is trained with.
RERUN, RERUN_CONFIG = "reproduction.json", "config.yaml"
# In a merged model's folder, written last.
MERGE_STAMP = "merge.json"
CARD = "README.md"
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
OPTIMIZER, STATE = "optimizer.safetensors", "state.json"  # beside them in a checkpoint
ADAPTER_FILES = frozenset({ADAPTER_WEIGHTS, ADAPTER_CONFIG, CARD, *OPTIONAL})


def evaluation_name(*about: str) -> str:
    """Name the file of an evaluation: the run's own, or one about other rows or another adapter."""
    return f"{'-'.join(('evaluation', *about))}.json"


def earlier_run(folder: Path) -> list[str]:
    """Name what a run has left there that would be lost."""
    return [name for name in (RECEIPT, METRICS, CHECKPOINTS, ADAPTER) if (folder / name).exists()]


def merged_files(folder: Path) -> Collection[str]:
    """Name what ``make merge`` writes into a folder; its index names the weights."""
    index: dict[str, Any] = object_or_none(folder / INDEX) or {}
    weights = index.get("weight_map")
    shards = {str(name) for name in weights.values()} if isinstance(weights, dict) else set()
    return {CARD, MERGE_STAMP, CONFIG, INDEX, WHOLE, *OPTIONAL, *shards}
