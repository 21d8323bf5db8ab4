"""The forward passes a run consists of: which rows meet in a micro-batch, and how long it becomes by padding."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kit.budget.job import MicroBatch
from kit.run.plan import FILLER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.config.settings import Settings
    from kit.run.plan import TrainingPlan


@dataclass(frozen=True)
class Workload:
    """All micro-batches of a run, counted.

    Attributes:
        batches: Each kind of micro-batch, and how often it comes.
        steps: Optimizer steps.
        tokens: Tokens of the rows themselves.
        loss_tokens: Tokens the loss is taken on.
        is_counted: From the rows; otherwise every row is taken to be full length.
    """

    batches: tuple[tuple[MicroBatch, int], ...]
    steps: int
    tokens: int
    loss_tokens: int
    is_counted: bool

    @property
    def computed_tokens(self) -> int:
        """Tokens that are computed: the rows' own and the padding."""
        return sum(batch.tokens * times for batch, times in self.batches)

    @property
    def forward_passes(self) -> int:
        """Micro-batches of the whole run."""
        return sum(times for _, times in self.batches)

    @property
    def largest(self) -> tuple[MicroBatch, ...]:
        """The micro-batches one of which needs the most memory: the longest with padding, and the longest without."""
        found: dict[bool, MicroBatch] = {}
        for batch, _ in self.batches:
            before = found.get(batch.has_padding)
            if before is None or (batch.tokens, batch.loss_tokens) > (before.tokens, before.loss_tokens):
                found[batch.has_padding] = batch
        return tuple(found.values())


def workload_of(plan: TrainingPlan, settings: Settings) -> Workload:
    """Count a plan's micro-batches, as the trainer cuts its order and the collator pads them or joins them."""
    training = settings.training
    lengths = [len(row.input_ids) for row in plan.rows]
    losses = [row.trainable_tokens for row in plan.rows]
    counted = count(plan.order, lengths, losses, training.per_device_train_batch_size, plan.batch_size)
    return end_to_end(counted) if training.padding_free else counted


def count(order: Iterable[int], lengths: list[int], losses: list[int], rows_at_once: int, batch_size: int) -> Workload:
    """Count the micro-batches of an order of rows.

    Args:
        order: Row indices, or ``FILLER`` for a row of one token without loss.
        lengths: Tokens of each row.
        losses: Tokens of each row that the loss is taken on.
        rows_at_once: Rows in a micro-batch.
        batch_size: Rows in an optimizer step.
    """
    seen = tuple(order)
    row_lengths = [*lengths, 1]  # FILLER is -1: the last
    row_losses = [*losses, 0]
    kinds: Counter[MicroBatch] = Counter()
    for begin in range(0, len(seen), rows_at_once):
        rows = seen[begin : begin + rows_at_once]
        here = [row_lengths[index] for index in rows]
        longest = max(here)
        loss_tokens = sum(row_losses[index] for index in rows)
        kinds[MicroBatch(len(rows), longest, min(here) < longest, loss_tokens, sum(here))] += 1
    tokens = sum(row_lengths[index] for index in seen if index != FILLER)
    loss_tokens = sum(row_losses[index] for index in seen)
    return Workload(tuple(kinds.items()), -(-len(seen) // batch_size), tokens, loss_tokens, is_counted=True)


def end_to_end(padded: Workload) -> Workload:
    """Return the same micro-batches with their rows laid end to end: one row each, nothing padded."""
    kinds: Counter[MicroBatch] = Counter()
    for batch, times in padded.batches:
        own = batch.own_tokens or batch.tokens
        kinds[MicroBatch(1, own, batch.rows > 1, batch.loss_tokens, own)] += times
    return replace(padded, batches=tuple(kinds.items()))


def full_length(settings: Settings, rows: int) -> Workload:
    """Return the upper bound where the rows' lengths are not known: each is as long as the configuration allows.

    In each micro-batch one token of padding is assumed, since a mask costs memory.
    """
    training = settings.training
    batch_size, length = settings.effective_batch_size, training.max_seq_length
    at_once = training.per_device_train_batch_size
    by_epochs = max(1, -(-round(rows * training.num_train_epochs) // batch_size))
    steps = training.max_steps if training.max_steps > 0 else by_epochs
    tokens = steps * batch_size * length
    if training.max_steps <= 0:
        tokens = round(rows * training.num_train_epochs) * length
    batch = MicroBatch(at_once, length, at_once > 1, at_once * (length - 1))
    passes = -(-tokens // batch.tokens)
    bound = Workload(((batch, passes),), steps, tokens, tokens - tokens // length, is_counted=False)
    return end_to_end(bound) if training.padding_free else bound
