"""Rules on the run's rhythm: steps, evaluations, checkpoints, warmup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.findings import Finding, ok, warning

if TYPE_CHECKING:
    from kit.checks.context import CheckContext

_LONGEST_WARMUP = 0.3


def saving_and_evaluating(run: CheckContext) -> list[Finding]:
    """Warn where a checkpoint would have no evaluation of its own."""
    training, where = run.settings.training, run.where("training.save_steps")
    if run.settings.data.val_file is None or training.save_steps % training.eval_steps == 0:
        return []
    nearest = max(1, round(training.save_steps / training.eval_steps)) * training.eval_steps
    message = (
        f"training.save_steps ({training.save_steps}) is not a multiple of training.eval_steps "
        f"({training.eval_steps}), "
        "so some checkpoints are saved without an evaluation"
    )
    return [warning("config.schedule.save_steps", message, f"training.save_steps={nearest}", where)]


def length_of_run(run: CheckContext) -> list[Finding]:
    """Say which of steps and epochs decides, and warn where a short run is never evaluated."""
    training = run.settings.training
    if training.max_steps < 0:
        return []
    key = "training.max_steps"
    message = f"{key} ({training.max_steps}) sets the length; training.num_train_epochs is ignored"
    found = [ok("config.schedule.length", message, run.where(key))]
    if run.settings.data.val_file and training.eval_steps > training.max_steps:
        message = f"training.eval_steps ({training.eval_steps}) is after the last step ({training.max_steps})"
        fix = f"training.eval_steps={training.max_steps}"
        found.append(warning("config.schedule.eval_steps", message, fix, run.where("training.eval_steps")))
    return found


def warmup(run: CheckContext) -> list[Finding]:
    """Warn of a warmup that is ignored, or takes up much of the run."""
    training, key = run.settings.training, "training.warmup_ratio"
    if training.warmup_ratio > 0 and training.lr_scheduler_type == "constant":
        message = f"{key} has no effect: the scheduler constant has no warmup"
        fix = "training.lr_scheduler_type=constant_with_warmup"
        return [warning("config.schedule.warmup", message, fix, run.where("training.lr_scheduler_type"))]
    if training.warmup_ratio > _LONGEST_WARMUP:
        message = f"{key} is {training.warmup_ratio:g}: warmup takes that share of the steps; 0 to 0.1 is usual"
        return [warning("config.schedule.warmup", message, f"{key}=0.03", run.where(key))]
    return []
