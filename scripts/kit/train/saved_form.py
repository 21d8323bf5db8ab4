"""Check that a checkpoint has the form of what this run would have saved, before anything is loaded from it.

Its hashes say that it is whole, not that the kit wrote it: a checkpoint may come from anywhere (``--resume PATH``).
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from kit.cli.refusals import first_line, is_failure, is_out_of_memory
from kit.run_directory.checkpoints import ResumeError

# Other keys of a group have a default where a later version of the library brings them.
_OF_EVERY_GROUP = {"params", "lr", "betas", "eps", "weight_decay"}
_OF_EVERY_SCHEDULE = ("last_epoch", "_step_count", "base_lrs", "_last_lr")
# Of AdamW, as torch and as bitsandbytes keep them: as large as the weight they belong to.
_MOMENTS = ("exp_avg", "exp_avg_sq", "state1", "state2")


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn whatever a checkpoint's content makes a library raise into one sentence.

    Raises:
        ResumeError: This run could not have saved it.
        OSError: A file cannot be read.
    """
    try:
        yield
    except BaseException as exc:
        if not is_failure(exc) or isinstance(exc, (OSError, ResumeError)) or is_out_of_memory(exc):
            raise
        detail = f"{type(exc).__name__}: {first_line(exc)}"
        raise ResumeError(f"{folder}: the saved state does not fit this run ({detail})") from exc


def check_optimizer(state: Any, optimizer: Any, *, is_scaled: bool) -> None:
    """Check an optimizer's saved state; with loss scaling (float16) it may be empty, as first steps may be skipped.

    Raises:
        ValueError: It has another form, or a value that no training leaves.
    """
    fresh = optimizer.state_dict()
    groups = state["param_groups"]
    if len(groups) != len(fresh["param_groups"]):
        raise ValueError(f"{len(groups)} parameter groups in the optimizer, expected {len(fresh['param_groups'])}")
    for group, other in zip(groups, fresh["param_groups"], strict=True):
        if gone := _OF_EVERY_GROUP & other.keys() - group.keys():
            raise ValueError(f"an optimizer group has no {', '.join(sorted(gone))}")
        _check_values(group, other, "optimizer")
        if group["params"] != other["params"]:
            raise ValueError("the optimizer's groups hold different weights")
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    # Nor does an optimizer without momentum keep anything.
    may_be_empty = is_scaled or not _is_adamw(optimizer)
    if set(state["state"]) != set(range(len(weights))) and (state["state"] or not may_be_empty):
        raise ValueError(f"the optimizer's state covers {len(state['state'])} weights, expected {len(weights)}")
    for number, kept in state["state"].items():
        # bitsandbytes keeps a part of it one level deeper.
        inner = [value for value in kept.values() if isinstance(value, dict)]
        _check_moments(functools.reduce(operator.or_, inner, kept), weights[number], _is_adamw(optimizer))


def _is_adamw(optimizer: Any) -> bool:
    return isinstance(getattr(optimizer, "optimizer", optimizer), torch.optim.AdamW)


def _check_moments(kept: dict[str, Any], weight: Any, is_adamw: bool) -> None:
    if is_adamw and not {"step", "exp_avg", "exp_avg_sq"} <= kept.keys():
        raise ValueError(f"a weight's optimizer state has only {', '.join(map(str, kept))}")
    if is_adamw and kept["step"].numel() != 1:
        raise ValueError("a weight's step is not a number")
    for name, value in kept.items():
        if name in _MOMENTS and value.shape != weight.shape:
            raise ValueError(f"{name} is {tuple(value.shape)}, for a weight of {tuple(weight.shape)}")
        if name == "step" and not math.isfinite(float(value)):
            raise ValueError(f"a weight's step is {value}")
        if isinstance(value, torch.Tensor) and not torch.isfinite(value.float()).all():
            raise ValueError(f"{name} holds NaN")


def check_schedule(state: Any, schedule: Any, step: int, *, is_scaled: bool) -> None:
    """Check a schedule's saved state after a step; with loss scaling (float16) it may lag by the skipped steps.

    Raises:
        ValueError: It has another form, or stands at another step.
    """
    # Its shape may be another one by now, where that was allowed.
    fresh = {name: value for name, value in schedule.state_dict().items() if name in _OF_EVERY_SCHEDULE}
    _check_values(state, fresh, "schedule")
    stands = state["last_epoch"]
    if stands != step and not (is_scaled and 0 <= stands < step):
        raise ValueError(f"the schedule is at step {stands}")


def _check_values(saved: Any, fresh: Any, place: str) -> None:
    """Compare numbers by being some, lists by length, and switches, which the configuration sets, by value."""
    if isinstance(fresh, dict):
        for key in fresh.keys() & saved.keys():
            _check_values(saved[key], fresh[key], f"{place}.{key}")
    elif isinstance(fresh, (list, tuple)):
        if not isinstance(saved, type(fresh)) or len(saved) != len(fresh):
            raise ValueError(f"{place} has a different structure")
        for one, other in zip(saved, fresh, strict=True):
            _check_values(one, other, place)
    elif isinstance(fresh, (int, float)) and not isinstance(fresh, bool):
        if isinstance(saved, bool) or not isinstance(saved, (int, float)) or not math.isfinite(saved):
            raise ValueError(f"{place} is not a number")
    elif saved is not fresh and (isinstance(saved, bool) or saved != fresh):
        raise ValueError(f"{place} is {saved!r}, but this run's is {fresh!r}")
