"""Other settings for the same run: those that leave the mathematics as it is, and those that do not.

An update is the sum over the same rows, however they are cut into micro-batches and whether activations are kept or
recomputed. Rounding, and the random numbers of dropout, may differ.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.model.shape import shape_of
from kit.plan.rows import workloads_for
from kit.plan.run_plan import RunPlan, plan_run
from kit.stacks.stack import VARIABLE_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kit.config.settings import Settings
    from kit.data.token_rows import TokenRows
    from kit.model.shape import ModelShape
    from kit.plan.run_plan import Device
    from kit.plan.workload import Workload

_LAYERS_APART = (1, 2, 3, 4, 6, 8)
_SHORTEST_ROW = 128  # tokens
# What may be another where the updates stay the same.
SAME_UPDATE = frozenset(
    f"training.{name}"
    for name in (
        *("per_device_train_batch_size", "gradient_accumulation_steps"),
        *("gradient_checkpointing", "gradient_checkpointing_every_n_layers", "padding_free"),
    )
)


@dataclass(frozen=True)
class Alternative:
    """One other choice of settings.

    Attributes:
        changes: What differs, as ``key.path`` and value; empty for the settings as they stand.
        is_same_mathematics: The updates stay the same sums over the same rows.
    """

    changes: tuple[tuple[str, Any], ...]
    plan: RunPlan
    is_same_mathematics: bool

    @property
    def overrides(self) -> str:
        """The changes as a command line takes them."""
        return " ".join(f"{key}={str(value).lower()}" for key, value in self.changes)

    @property
    def cost(self) -> float:
        """What to rank by: seconds at the worst rate, or tokens where time is not known; less is better."""
        duration = self.plan.duration
        return duration.arithmetic_seconds if duration else float(self.plan.computed_tokens)

    def as_mapping(self) -> dict[str, Any]:
        """Return what ``--json`` shows."""
        whole = self.plan.as_mapping()
        return {
            "overrides": dict(self.changes),
            "same_mathematics": self.is_same_mathematics,
            **{key: whole[key] for key in ("peak_memory_bytes", "seconds", "verdict")},
        }


@dataclass(frozen=True)
class PlannedRun:
    """A run and its plan, which other settings can be held against.

    Attributes:
        workloads: Counts the micro-batches of a configuration.
        rows: In words, the rows it is planned for.
    """

    settings: Settings
    shape: ModelShape
    device: Device
    workloads: Callable[[Settings], Workload]
    rows: str = ""

    @functools.cached_property
    def plan(self) -> RunPlan:
        """The run as it stands, planned once."""
        return plan_run(self.settings, self.shape, self.device, self.workloads(self.settings))

    def with_changes(self, changes: dict[str, Any], *, same: bool = True) -> Alternative:
        """Plan the run with some values changed."""
        settings = self.settings.with_changes(changes)
        plan = plan_run(settings, self.shape, self.device, self.workloads(settings))
        return Alternative(tuple(changes.items()), plan, same)


def planned_run_of(
    settings: Settings, device: Device, rows: TokenRows | int | None, held_out: TokenRows | None = None
) -> PlannedRun | None:
    """Return a run to plan; None where its model's shape is not known.

    It is trained on ``rows`` and evaluated on ``held_out``: see ``workloads_for``.
    """
    shape = shape_of(settings.model)
    return None if shape is None else PlannedRun(settings, shape, device, *workloads_for(settings, rows, held_out))


def faster(planned_run: PlannedRun) -> list[Alternative]:
    """Return every choice that leaves the mathematics as it is and fits, fastest first; the present one included.

    Where time is not known, as for a very small model, there is nothing to rank by and only the present one.
    """
    present = Alternative((), planned_run.plan, is_same_mathematics=True)
    if planned_run.plan.duration is None:
        return [present]
    found = [present, *same_updates(planned_run)]
    return sorted((item for item in found if item.plan.verdict in {"fits", "unknown"}), key=rank)


def same_updates(planned_run: PlannedRun) -> list[Alternative]:
    """Return every other choice that leaves the mathematics as it is, whether it fits or not."""
    return [planned_run.with_changes(changes) for changes in _same_update(planned_run.settings, planned_run.device)]


def most_promising(planned_run: PlannedRun, most: int) -> list[Alternative]:
    """Return the fastest other choices of the same mathematics that fit, by the plan; at most so many."""
    fitting = [item for item in same_updates(planned_run) if item.plan.verdict == "fits"]
    return sorted(fitting, key=lambda item: nearness(planned_run, item))[:most]


def other_mathematics(planned_run: PlannedRun) -> list[Alternative]:
    """Return what saves memory and changes what is learnt: no dropout, shorter rows. Mildest first."""
    changes: list[dict[str, Any]] = []
    if planned_run.settings.lora.lora_dropout > 0:
        changes.append({"lora.lora_dropout": 0.0})
    changes += [{"training.max_seq_length": length} for length in _halves(planned_run.settings)]
    return [planned_run.with_changes(change, same=False) for change in changes]


def mildest_that_fits(planned_run: PlannedRun) -> Alternative | None:
    """Return the fastest choice of the same mathematics that fits; failing that, the longest rows that do."""
    fitting = most_promising(planned_run, 1)
    if fitting:
        return fitting[0]
    least: dict[str, Any] = {
        "training.per_device_train_batch_size": 1,
        "training.gradient_accumulation_steps": planned_run.settings.effective_batch_size,
        "training.gradient_checkpointing": True,
    }
    needed = {key: value for key, value in least.items() if planned_run.settings.value(key) != value}
    for length in _halves(planned_run.settings):
        shorter = planned_run.with_changes(needed | {"training.max_seq_length": length}, same=False)
        if shorter.plan.verdict == "fits":
            return shorter
    return None


def _halves(settings: Settings) -> list[int]:
    lengths, length = [], settings.training.max_seq_length // 2
    while length >= _SHORTEST_ROW:
        lengths.append(length)
        length //= 2
    return lengths


def rank(item: Alternative) -> tuple[float, int, int]:
    """Return what to sort by: the cost, at equal cost the smaller peak, then the fewer changes."""
    return round(item.cost, 3), item.plan.peak_memory_bytes, len(item.changes)


def nearness(planned_run: PlannedRun, item: Alternative) -> tuple[float, ...]:
    """Return what to sort by where time may not be known: then what recomputes least, in the largest micro-batches."""
    if item.plan.duration is not None:
        return rank(item)
    training = planned_run.settings.with_changes(dict(item.changes)).training
    recomputed = training.gradient_checkpointing / training.gradient_checkpointing_every_n_layers
    return recomputed, -item.plan.batch.tokens, len(item.changes)


def _same_update(settings: Settings, device: Device) -> Iterator[dict[str, Any]]:
    """Every way to cut an update into micro-batches, with every share of recomputed layers, as what would change."""
    batch_size = settings.effective_batch_size
    apart = _LAYERS_APART if device.stack.has_partial_checkpointing else (1,)
    end_to_end = {settings.training.padding_free}
    if device.stack.traits.padding_free and device.attention in VARIABLE_LENGTH:
        end_to_end.add(True)
    for rows in (rows for rows in range(1, batch_size + 1) if batch_size % rows == 0):
        for layers in (0, *apart):
            for padding_free in sorted(end_to_end):
                wanted = {
                    "training.per_device_train_batch_size": rows,
                    "training.gradient_accumulation_steps": batch_size // rows,
                    "training.gradient_checkpointing": layers > 0,
                    "training.gradient_checkpointing_every_n_layers": max(layers, 1),
                    "training.padding_free": padding_free,
                }
                changes = {key: value for key, value in wanted.items() if value != settings.value(key)}
                if changes:
                    yield changes
