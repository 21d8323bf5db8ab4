"""The order of training rows: the same on every stack and machine.

transformers 4.36 carries an incomplete last batch into the next epoch and drops the run's last one; transformers 5
makes a smaller update of it. Here every epoch ends with an update of its own, filled with rows that carry no loss.
"""

from __future__ import annotations

import math
import random
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.data.token_rows import NO_ROWS

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.data.token_rows import TokenRows

FILLER = -1  # in place of a row's index: a row without loss


@dataclass(frozen=True)
class BatchOrder:
    """The whole run, step by step."""

    rows: TokenRows
    eval_rows: TokenRows  # empty without evaluation
    order: array[int]  # row indices or FILLER, batch_size per optimizer step, micro-batch after micro-batch
    batch_size: int  # rows per optimizer step
    steps: int
    steps_per_epoch: int  # optimizer steps until every row was seen once
    tokens: array[int]  # cumulative, after each step
    trainable_tokens: array[int]  # of each step, not cumulative: what its summed loss is divided by

    @property
    def size_bytes(self) -> int:
        """Memory of rows, order and counts."""
        lists = (self.order, self.tokens, self.trainable_tokens)
        return self.rows.size_bytes + self.eval_rows.size_bytes + sum(len(each) * each.itemsize for each in lists)


def order_batches(settings: Settings, rows: TokenRows, eval_rows: TokenRows = NO_ROWS) -> BatchOrder:
    """Lay out a run: each epoch a new permutation, seeded by ``training.seed`` and the epoch's number."""
    batch_size = settings.effective_batch_size
    steps, steps_per_epoch = count_steps(settings, len(rows))
    order = np.full((math.ceil(steps / steps_per_epoch), steps_per_epoch * batch_size), FILLER, np.int32)
    for epoch, indices in enumerate(order):
        permutation = array("i", range(len(rows)))
        random.Random(f"{settings.training.seed}/{epoch}").shuffle(permutation)  # noqa: S311 - an order, not a secret
        indices[: len(rows)] = permutation
    updates = order.reshape(-1, batch_size)[:steps]
    # FILLER (-1) indexes the row appended here, of length 0.
    lengths, trained = np.append(rows.lengths, 0), np.append(rows.trained, 0)
    if settings.training.sort_within_update:
        # Rows of similar length share a micro-batch: less padding, same update. The longest micro-batch comes first, so
        # one that does not fit in memory fails at once. A stable sort is the same on every machine.
        updates = np.take_along_axis(updates, np.argsort(-lengths[updates], axis=1, kind="stable"), axis=1)
    return BatchOrder(
        rows,
        eval_rows,
        _packed("i", updates),
        batch_size,
        steps,
        steps_per_epoch,
        _packed("q", lengths[updates].sum(axis=1, dtype=np.int64).cumsum()),
        _packed("q", trained[updates].sum(axis=1, dtype=np.int64)),
    )


def count_steps(settings: Settings, rows: int) -> tuple[int, int]:
    """Return the optimizer steps of a run and of one epoch; every epoch ends with its own update.

    ``training.max_steps`` above zero wins over ``num_train_epochs``, as in transformers.
    """
    steps_per_epoch = math.ceil(rows / settings.effective_batch_size)
    # Rounded first: 0.07 epochs of 100 steps are 7, and 0.07 * 100 is a little more.
    by_epochs = max(1, math.ceil(round(settings.training.num_train_epochs * steps_per_epoch, 6)))
    steps = settings.training.max_steps
    return (steps if steps > 0 else by_epochs), steps_per_epoch


def _packed(kind: str, numbers: Any) -> array[int]:
    return array(kind, numbers.astype(kind).tobytes())
