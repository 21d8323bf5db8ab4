"""Which row is trained on when: the kit's own order, the same on every stack and machine.

transformers 4.36 carries an incomplete last batch over into the next epoch and drops the very last one; transformers 5
makes a smaller update of it. Here every epoch ends with an update of its own, filled up with rows that carry no loss,
so both stacks take the same steps on the same rows.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.config.settings import Settings
    from kit.data.encoding import EncodedRow

FILLER = -1  # in place of a row's index: a row without loss


@dataclass(frozen=True)
class TrainingPlan:
    """The whole run, step by step.

    Attributes:
        rows: What is trained on.
        eval_rows: What it is measured on; empty for none.
        order: Row indices (or ``FILLER``), ``batch_size`` of them for each optimizer step, its micro-batches in turn.
        batch_size: Rows per optimizer step.
        steps: Optimizer steps.
        steps_per_epoch: Optimizer steps until every row was seen once.
        tokens: Cumulative tokens after each step.
        trainable_tokens: Tokens the loss is taken on, in each step: what its sum is divided by.
    """

    rows: Sequence[EncodedRow]
    eval_rows: Sequence[EncodedRow]
    order: tuple[int, ...]
    batch_size: int
    steps: int
    steps_per_epoch: int
    tokens: tuple[int, ...]
    trainable_tokens: tuple[int, ...]


def make_plan(settings: Settings, rows: Sequence[EncodedRow], eval_rows: Sequence[EncodedRow] = ()) -> TrainingPlan:
    """Lay out a run: each epoch a new permutation, seeded by ``training.seed`` and the epoch's number.

    ``training.max_steps`` above zero wins over ``num_train_epochs``, as in transformers.
    """
    training, batch_size = settings.training, settings.effective_batch_size
    steps_per_epoch = math.ceil(len(rows) / batch_size)
    # Rounded first: 0.07 epochs of 100 steps are 7, and 0.07 * 100 is a little more.
    by_epochs = max(1, math.ceil(round(training.num_train_epochs * steps_per_epoch, 6)))
    steps = training.max_steps if training.max_steps > 0 else by_epochs
    order: list[int] = []
    for epoch in range(math.ceil(steps / steps_per_epoch)):
        indices = list(range(len(rows)))
        random.Random(f"{training.seed}/{epoch}").shuffle(indices)  # noqa: S311 - an order, not a secret
        order += indices
        order += [FILLER] * (steps_per_epoch * batch_size - len(rows))
    order = order[: steps * batch_size]
    if training.sort_within_update:
        order = _longest_first(order, rows, batch_size)

    tokens, trainable, seen = [], [], 0
    for step in range(steps):
        batch = [rows[index] for index in order[step * batch_size : (step + 1) * batch_size] if index != FILLER]
        seen += sum(len(row.input_ids) for row in batch)
        tokens.append(seen)
        trainable.append(sum(row.trainable_tokens for row in batch))
    return TrainingPlan(
        rows, eval_rows, tuple(order), batch_size, steps, steps_per_epoch, tuple(tokens), tuple(trainable)
    )


def _longest_first(order: Sequence[int], rows: Sequence[EncodedRow], batch_size: int) -> list[int]:
    """Sort each update's rows by length, so that a micro-batch holds rows of like length and little padding.

    The update stays the same sum over the same rows. The longest micro-batch comes first: what does not fit fails at
    once.
    """
    arranged: list[int] = []
    for begin in range(0, len(order), batch_size):
        update = order[begin : begin + batch_size]
        # Python's sort is stable, so the order is the same everywhere; a filler is the shortest there is.
        arranged += sorted(update, key=lambda index: 0 if index == FILLER else -len(rows[index].input_ids))
    return arranged
