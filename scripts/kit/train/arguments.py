"""Translate the configuration into training arguments. Imports torch, through ``kit.train.performance``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kit.cli.failures import ExplainedError
from kit.config.platforms import CUDA_PLATFORMS
from kit.config.schema import keys_with
from kit.train.performance import performance_arguments

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.data.batch_order import BatchOrder


class MicroBatchError(ExplainedError):
    """The trainer would take other micro-batches than the plan counts."""

    finding_id = "run.micro_batch"
    fix = "start one process, without torchrun or accelerate launch, and give it one GPU: CUDA_VISIBLE_DEVICES=0"

    def __init__(self, rows: int, planned: int, devices: int) -> None:
        """Say what it would take, in one sentence."""
        at_once = f"{rows} rows at once on {devices} device{'' if devices == 1 else 's'}"
        super().__init__(f"the trainer would take {at_once}, but the plan counts {planned} on one")


def training_arguments(settings: Settings, plan: BatchOrder, platform: str) -> dict[str, Any]:
    """Translate the configuration into the training arguments that all generations of the libraries share."""
    training = settings.training
    on_cuda = platform in CUDA_PLATFORMS
    has_eval = bool(plan.eval_rows)
    arguments: dict[str, Any] = {
        **{key.partition(".")[2]: settings.value(key) for key in keys_with("to_trainer")},
        "output_dir": str(settings.run_directory / "checkpoints"),
        "max_steps": plan.steps,
        # transformers 5 dropped warmup_ratio; counted here, both stacks warm up for the same steps.
        "warmup_steps": math.ceil(training.warmup_ratio * plan.steps),
        # A NaN must be seen, not replaced by an average.
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if has_eval else "no",
        "save_strategy": "steps",
        "report_to": [],  # kit.track.wandb_tracker sends them
        "disable_tqdm": True,
        "label_names": ["labels"],
        # Rows are made on the way out, of a column that no model knows.
        "remove_unused_columns": False,
        "use_cpu": platform == "cpu",
        "dataloader_pin_memory": on_cuda,
    }
    return arguments | performance_arguments(settings)


def require_micro_batch(arguments: Any, rows: int) -> None:
    """Refuse a trainer whose micro-batches are not the plan's: the steps, the rate and the memory would be others.

    ``rows`` is what the trainer takes at once.

    Raises:
        MicroBatchError: It spreads them over several devices or processes, or takes another number of rows.
    """
    devices, planned = max(1, arguments.n_gpu) * arguments.world_size, arguments.per_device_train_batch_size
    if devices > 1 or rows != planned:
        raise MicroBatchError(rows, planned, devices)
