"""Other settings for the same run: those that leave the mathematics as it is, and those that do not.

An update is the sum over the same rows, however they are cut into micro-batches and whether activations are kept or
recomputed. Rounding, and the random numbers of dropout, may differ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kit.budget.plan import RunPlan, every_n_layers, plan_run
from kit.config import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kit.budget.plan import Device
    from kit.budget.workload import Workload
    from kit.config.settings import Settings
    from kit.model.shape import ModelShape

EVERY_N_LAYERS_KEY = "training.gradient_checkpointing_every_n_layers"
_LAYERS_APART = (1, 2, 3, 4, 6, 8)
_SHORTEST_ROW = 128  # tokens


@dataclass(frozen=True)
class Alternative:
    """One other choice of settings.

    Attributes:
        changes: What differs, as ``key.path`` and value; empty for the settings as they stand.
        plan: What it would take.
        is_same_mathematics: The updates stay the same sums over the same rows.
        is_available: This kit's schema has every key that is changed.
    """

    changes: tuple[tuple[str, Any], ...]
    plan: RunPlan
    is_same_mathematics: bool
    is_available: bool

    @property
    def overrides(self) -> str:
        """The changes as a command line takes them."""
        return " ".join(f"{key}={str(value).lower()}" for key, value in self.changes)

    @property
    def cost(self) -> float:
        """What to rank by: seconds at the worst rate, or operations where time is not known; less is better."""
        duration = self.plan.duration
        return duration.slow_seconds if duration else float(self.plan.computed_tokens)

    def as_mapping(self) -> dict[str, Any]:
        """Return what ``--json`` shows."""
        whole = self.plan.as_mapping()
        return {
            "overrides": dict(self.changes),
            "same_mathematics": self.is_same_mathematics,
            "available": self.is_available,
            **{key: whole[key] for key in ("peak_memory_bytes", "seconds", "verdict")},
        }


@dataclass(frozen=True)
class Question:
    """The run that other settings are looked for.

    Attributes:
        settings: The configuration.
        shape: The model's sizes.
        device: What it runs on.
        workloads: Counts the micro-batches of a configuration.
    """

    settings: Settings
    shape: ModelShape
    device: Device
    workloads: Callable[[Settings], Workload]

    def answer(self, changes: dict[str, Any], *, same: bool = True) -> Alternative:
        """Plan the run with some values changed; a key the schema does not know changes the plan alone."""
        keys = frozenset(schema.keys())
        settings = changed(self.settings, {key: value for key, value in changes.items() if key in keys})
        apart = changes.get(EVERY_N_LAYERS_KEY, every_n_layers(settings))
        plan = plan_run(settings, self.shape, self.device, self.workloads(settings), layers_apart=apart)
        return Alternative(tuple(changes.items()), plan, same, is_available=keys.issuperset(changes))


def faster(question: Question) -> list[Alternative]:
    """Return every choice that leaves the mathematics as it is and fits, fastest first; the present one included.

    Where time is not known, as for a very small model, there is nothing to rank by and only the present one.
    """
    found = [question.answer({})]
    if found[0].plan.duration is None:
        return found
    found += [question.answer(changes) for changes in _same_update(question.settings, question.device.stack)]
    return sorted((item for item in found if item.plan.verdict in {"fits", "unknown"}), key=_rank)


def other_mathematics(question: Question) -> list[Alternative]:
    """Return what saves memory and changes what is learnt: no dropout, shorter rows. Mildest first."""
    changes: list[dict[str, Any]] = []
    if question.settings.lora.lora_dropout > 0:
        changes.append({"lora.lora_dropout": 0.0})
    changes += [{"training.max_seq_length": length} for length in _halves(question.settings)]
    return [question.answer(change, same=False) for change in changes]


def mildest_that_fits(question: Question) -> Alternative | None:
    """Return the fastest choice of the same mathematics that fits; failing that, the longest rows that do."""
    choices = [question.answer(changes) for changes in _same_update(question.settings, question.device.stack)]
    fitting = [item for item in choices if item.is_available and item.plan.verdict == "fits"]
    if fitting:
        return min(fitting, key=_rank)
    least: dict[str, Any] = {
        "training.per_device_train_batch_size": 1,
        "training.gradient_accumulation_steps": question.settings.effective_batch_size,
        "training.gradient_checkpointing": True,
    }
    needed = {key: value for key, value in least.items() if _value(question.settings, key) != value}
    for length in _halves(question.settings):
        shorter = question.answer(needed | {"training.max_seq_length": length}, same=False)
        if shorter.plan.verdict == "fits":
            return shorter
    return None


def _halves(settings: Settings) -> list[int]:
    lengths, length = [], settings.training.max_seq_length // 2
    while length >= _SHORTEST_ROW:
        lengths.append(length)
        length //= 2
    return lengths


def _value(settings: Settings, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(settings, section), name)


def changed(settings: Settings, changes: dict[str, Any]) -> Settings:
    """Return a configuration with some ``key.path`` values replaced."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    return replace(settings, **{name: replace(getattr(settings, name), **body) for name, body in sections.items()})


def _rank(item: Alternative) -> tuple[float, int, int]:
    # At equal time the smaller peak, then the fewer changes.
    return round(item.cost, 3), item.plan.peak_memory_bytes, len(item.changes)


def _same_update(settings: Settings, stack: str) -> Iterator[dict[str, Any]]:
    """Every way to cut an update into micro-batches, with every share of recomputed layers, as what would change."""
    training, batch_size = settings.training, settings.effective_batch_size
    # transformers 4.36 checkpoints all layers or none.
    apart = _LAYERS_APART if stack == "current" else (1,)
    present = {
        "training.per_device_train_batch_size": training.per_device_train_batch_size,
        "training.gradient_accumulation_steps": training.gradient_accumulation_steps,
        "training.gradient_checkpointing": training.gradient_checkpointing,
        EVERY_N_LAYERS_KEY: every_n_layers(settings),
    }
    for rows in (rows for rows in range(1, batch_size + 1) if batch_size % rows == 0):
        for layers in (0, *apart):
            wanted = {
                "training.per_device_train_batch_size": rows,
                "training.gradient_accumulation_steps": batch_size // rows,
                "training.gradient_checkpointing": layers > 0,
                EVERY_N_LAYERS_KEY: max(layers, 1) if layers else present[EVERY_N_LAYERS_KEY],
            }
            changes = {key: value for key, value in wanted.items() if value != present[key]}
            if changes:
                yield changes
