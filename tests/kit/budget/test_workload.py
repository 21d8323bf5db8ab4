from __future__ import annotations

from typing import Any

import pytest

from kit.budget.job import MicroBatch
from kit.budget.rows import workloads_for
from kit.budget.workload import count, full_length, workload_of
from kit.config.resolve import resolve
from kit.data.encoding import EncodedRow
from kit.interpreter import PROJECT_ROOT
from kit.run.plan import FILLER, make_plan

H100 = PROJECT_ROOT / "configs" / "training_config_h100.yaml"


def _settings(**overrides: Any) -> Any:
    return resolve(H100, {key.replace("__", "."): value for key, value in overrides.items()}).settings


def _rows(*lengths: int) -> list[EncodedRow]:
    return [EncodedRow([1] * length, [-100, *[2] * (length - 1)], line, length) for line, length in enumerate(lengths)]


def test_a_micro_batch_is_as_long_as_its_longest_row() -> None:
    work = count([0, 1, 2, FILLER], [10, 30, 20], [5, 6, 7], rows_at_once=2, batch_size=4)
    assert dict(work.batches) == {MicroBatch(2, 30, True, 11, 40): 1, MicroBatch(2, 20, True, 7, 21): 1}
    assert work.computed_tokens == 2 * 30 + 2 * 20
    assert (work.tokens, work.loss_tokens, work.steps, work.forward_passes) == (60, 18, 1, 2)


def test_rows_of_one_length_are_not_padded() -> None:
    work = count([0, 1, 0, 1], [8, 8], [7, 7], rows_at_once=2, batch_size=2)
    assert work.batches == ((MicroBatch(2, 8, False, 14, 16), 2),)


def test_the_largest_with_padding_and_without_are_both_considered() -> None:
    work = count([0, 1, 2, 2, 0, 0], [10, 30, 20], [5, 6, 7], rows_at_once=2, batch_size=2)
    assert {(batch.length, batch.has_padding) for batch in work.largest} == {(30, True), (20, False)}


def test_a_plan_is_counted_as_the_trainer_cuts_it() -> None:
    settings = _settings(training__num_train_epochs=2.0, training__per_device_train_batch_size=2)
    plan = make_plan(settings, _rows(*range(5, 45)))
    work = workload_of(plan, settings)
    assert work.tokens == plan.tokens[-1]
    assert work.steps == plan.steps
    assert work.loss_tokens == sum(plan.trainable_tokens)
    assert work.forward_passes == plan.steps * plan.batch_size // 2
    assert max(batch.length for batch in work.largest) == 44


def test_rows_laid_end_to_end_are_not_padded() -> None:
    settings = _settings(training__num_train_epochs=1.0, training__padding_free=True)
    plan = make_plan(settings, _rows(*range(10, 42)))
    work = workload_of(plan, settings)
    assert work.computed_tokens == work.tokens == plan.tokens[-1]
    assert {batch.rows for batch, _ in work.batches} == {1}
    assert all(batch.has_padding for batch, _ in work.batches)
    assert full_length(settings, 16).largest[0].length == 4 * 4096


def test_without_lengths_every_row_is_full() -> None:
    work = full_length(_settings(training__max_seq_length=2048), 15_000)
    assert work.tokens == 92_160_000
    assert not work.is_counted
    assert full_length(_settings(training__max_steps=10), 15_000).tokens == 10 * 16 * 4096


def test_shorter_rows_are_cut_before_they_are_counted() -> None:
    settings = _settings(training__max_seq_length=100)
    workloads, words = workloads_for(settings, _rows(*[100] * 16))
    assert "16 rows" in words
    assert workloads(settings).tokens == 3 * 1600
    assert workloads(_settings(training__max_seq_length=50)).tokens == 3 * 800


@pytest.mark.parametrize(("number", "words"), [(None, "15,000 rows, each taken to be full length: "), (7, "7 rows")])
def test_a_plan_says_what_it_took_for_the_rows(number: int | None, words: str) -> None:
    settings = _settings(data__train_file="nowhere/rows.jsonl")
    workloads, said = workloads_for(settings, None, number)
    assert words in said
    assert workloads(settings).tokens == (number or 15_000) * 3 * 4096
