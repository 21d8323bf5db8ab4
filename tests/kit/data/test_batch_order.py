"""Which row is trained on when: every row once an epoch, the same order each time, nothing lost at the edges."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.data.batch_order import FILLER, BatchOrder, order_batches
from kit.data.encoding import IGNORE_INDEX, EncodedRow
from kit.data.token_rows import TokenRows

if TYPE_CHECKING:
    from kit.config.settings import Settings

DEMO = PROJECT_ROOT / "configs" / "training_config_demo.yaml"


def _settings(batch: int = 4, accumulation: int = 1, **training: Any) -> Settings:
    values = {
        "max_steps": -1,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        **training,
    }
    return resolve(DEMO, {f"training.{key}": value for key, value in values.items()}).settings


def _rows(count: int) -> TokenRows:
    """Rows of 1, 2, 3 … answer tokens behind a prompt of 2."""
    return TokenRows.of(
        EncodedRow([1, 5, *[6] * (index + 1)], [IGNORE_INDEX] * 2 + [6] * (index + 1), index + 1, index + 3)
        for index in range(count)
    )


def _epochs(plan: BatchOrder) -> list[tuple[int, ...]]:
    size = plan.steps_per_epoch * plan.batch_size
    return [tuple(plan.order[begin : begin + size]) for begin in range(0, len(plan.order), size)]


@settings(max_examples=50)
@given(rows=st.integers(1, 40), batch=st.integers(1, 9), accumulation=st.integers(1, 3), epochs=st.integers(1, 4))
def test_each_epoch_takes_every_row_once_and_fills_up_only_its_end(
    rows: int, batch: int, accumulation: int, epochs: int
) -> None:
    plan = order_batches(_settings(batch, accumulation, num_train_epochs=float(epochs)), _rows(rows))
    assert plan.batch_size == batch * accumulation
    assert plan.steps == epochs * plan.steps_per_epoch
    assert len(plan.order) == plan.steps * plan.batch_size
    assert len(_epochs(plan)) == epochs
    for epoch in _epochs(plan):
        assert sorted(epoch[:rows]) == list(range(rows))
        assert set(epoch[rows:]) <= {FILLER}
        assert len(epoch) - rows < plan.batch_size


def test_every_step_has_something_to_learn() -> None:
    plan = order_batches(_settings(batch=4, num_train_epochs=3.0), _rows(9))
    assert len(plan.trainable_tokens) == plan.steps == 9
    assert all(plan.trainable_tokens)


def test_the_order_is_the_same_each_time_and_another_for_each_epoch_and_seed() -> None:
    rows = _rows(20)
    plan = order_batches(_settings(num_train_epochs=3.0, seed=1), rows)
    assert order_batches(_settings(num_train_epochs=3.0, seed=1), rows).order == plan.order
    assert len(set(_epochs(plan))) == 3
    other = order_batches(_settings(num_train_epochs=3.0, seed=2), rows)
    assert not set(_epochs(other)) & set(_epochs(plan))


def test_the_order_is_this_one_on_every_machine_and_python() -> None:
    # A change here changes every run ever recorded.
    as_drawn = _settings(num_train_epochs=1.0, seed=42, sort_within_update=False)
    assert order_batches(as_drawn, _rows(8)).order.tolist() == [1, 2, 5, 7, 6, 0, 3, 4]
    assert order_batches(_settings(num_train_epochs=1.0, seed=42), _rows(8)).order.tolist() == [7, 5, 2, 1, 6, 4, 3, 0]


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    short, long = (order_batches(_settings(max_steps=steps), _rows(10)) for steps in (4, 40))
    assert long.order[: len(short.order)] == short.order
    assert long.tokens[:4] == short.tokens


@pytest.mark.parametrize(
    ("rows", "batch", "epochs", "steps"),
    [
        (10, 4, 1.0, 3),
        (12, 4, 1.0, 3),
        (3, 4, 1.0, 1),
        (3, 4, 5.0, 5),
        (1, 4, 1.0, 1),
        (40, 4, 0.5, 5),
        (40, 4, 0.25, 3),
        (40, 4, 0.001, 1),
        (40, 4, 1.1, 11),
        (400, 4, 0.07, 7),
        (40, 4, 2.5, 25),
    ],
)
def test_epochs_become_steps(rows: int, batch: int, epochs: float, steps: int) -> None:
    assert order_batches(_settings(batch, num_train_epochs=epochs), _rows(rows)).steps == steps


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 100])
def test_max_steps_wins_over_epochs(steps: int) -> None:
    plan = order_batches(_settings(max_steps=steps, num_train_epochs=2.0), _rows(10))
    assert plan.steps == len(plan.tokens) == len(plan.trainable_tokens) == steps
    assert len(plan.order) == steps * plan.batch_size
    times = Counter(index for index in plan.order if index != FILLER)
    assert max(times.values()) - min(times[index] for index in range(10)) <= 1


def test_tokens_add_up_over_the_steps() -> None:
    rows = _rows(10)
    plan = order_batches(_settings(batch=4, num_train_epochs=2.0), rows)
    epoch_tokens = sum(len(row.input_ids) for row in rows)
    assert plan.tokens[plan.steps_per_epoch - 1] == epoch_tokens
    assert plan.tokens[-1] == 2 * epoch_tokens
    assert list(plan.tokens) == sorted(plan.tokens)
    assert sum(plan.trainable_tokens) == 2 * sum(row.trainable_tokens for row in rows)
    first = [rows[index] for index in plan.order[:4]]
    assert plan.tokens[0] == sum(len(row.input_ids) for row in first)
    assert plan.trainable_tokens[0] == sum(row.trainable_tokens for row in first)


def test_validation_rows_are_carried_along() -> None:
    assert list(order_batches(_settings(), _rows(3), _rows(2)).eval_rows) == list(_rows(2))
    assert not order_batches(_settings(), _rows(3)).eval_rows
