"""The forward passes a run consists of: which rows meet in a micro-batch, and how long it becomes by padding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.data.batch_order import FILLER, count_steps
from kit.plan.step import MicroBatch

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.data.batch_order import BatchOrder


@dataclass(frozen=True)
class Workload:
    """All micro-batches of a run, counted.

    Attributes:
        largest: Those one of which needs the most memory: the longest with padding, and the longest without.
        tokens: Tokens of the rows themselves.
        loss_tokens: Tokens the loss is taken on.
        computed_tokens: Tokens that are computed: the rows' own and the padding.
        attended_tokens: For each of these the length it meets, summed.
        predicted_tokens: Those of them that have one before them.
        is_counted: From the rows; otherwise every row is taken to be full length.
        rows_bytes: Host memory that rows, order and counts take.
    """

    largest: tuple[MicroBatch, ...]
    steps: int
    forward_passes: int
    tokens: int
    loss_tokens: int
    computed_tokens: int
    attended_tokens: int
    predicted_tokens: int
    is_counted: bool = True
    rows_bytes: int = 0


def workload_of(plan: BatchOrder, settings: Settings) -> Workload:
    """Count a plan's micro-batches, as the trainer cuts its order and the collator pads them or joins them."""
    counted = count(np.asarray(plan.order), plan.rows.lengths, plan.rows.trained, settings)
    return replace(counted, rows_bytes=plan.size_bytes)


def count(order: Any, lengths: Any, losses: Any, settings: Settings) -> Workload:
    """Count the micro-batches of an order of rows.

    ``order`` holds row indices, or ``FILLER`` for a row of one token without loss; at least one. ``lengths`` and
    ``losses`` are tokens of each row: all of them, and those the loss is taken on.
    """
    training = settings.training
    begins = np.arange(0, len(order), training.per_device_train_batch_size)
    own = np.append(lengths, 1)[order].astype(np.int64)  # FILLER is -1: the last
    loss = np.add.reduceat(np.append(losses, 0)[order].astype(np.int64), begins)
    rows = np.diff(np.append(begins, len(order)))
    longest, together = np.maximum.reduceat(own, begins), np.add.reduceat(own, begins)
    padded = np.minimum.reduceat(own, begins) < longest
    if training.padding_free:
        rows, longest, padded = np.ones_like(rows), together, rows > 1
    computed = rows * longest
    largest = [_largest(rows, longest, loss, padded, these) for these in (padded, ~padded) if these.any()]
    return Workload(
        largest=tuple(largest),
        steps=-(-len(order) // settings.effective_batch_size),
        forward_passes=len(rows),
        tokens=int(own[order != FILLER].sum()),
        loss_tokens=int(loss.sum()),
        computed_tokens=int(computed.sum()),
        attended_tokens=int((computed * longest).sum()),
        predicted_tokens=int((computed - rows).sum()),
    )


def _largest(rows: Any, longest: Any, loss: Any, padded: Any, these: Any) -> MicroBatch:
    found = np.flatnonzero(these)
    at = found[np.lexsort((loss[found], (rows * longest)[found]))[-1]]
    return MicroBatch(int(rows[at]), int(longest[at]), bool(padded[at]), int(loss[at]))


def full_length(settings: Settings, rows: int) -> Workload:
    """Return the upper bound where the rows' lengths are not known: each is as long as the configuration allows.

    In each micro-batch one token of padding is assumed, since a mask costs memory.
    """
    steps, steps_per_epoch = count_steps(settings, rows)
    length, batch_size = settings.training.max_seq_length, settings.effective_batch_size
    places = np.arange(steps * batch_size) % (steps_per_epoch * batch_size)
    order = np.where(places < rows, 0, FILLER)
    counted = count(order, np.array([length]), np.array([length - 1]), settings)
    most = max(counted.largest, key=lambda batch: batch.tokens)
    several = settings.training.per_device_train_batch_size > 1
    return replace(counted, largest=(replace(most, has_padding=several),), is_counted=False)
