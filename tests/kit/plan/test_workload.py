from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.data import conversations
from kit.data.batch_order import FILLER, order_batches
from kit.data.encoding import EncodedRow
from kit.data.token_rows import TokenRows
from kit.plan.rows import workloads_for
from kit.plan.step import MicroBatch
from kit.plan.workload import Workload, count, full_length, workload_of

H100 = PROJECT_ROOT / "configs" / "training_config_h100.yaml"


def _settings(**overrides: Any) -> Any:
    return resolve(H100, {key.replace("__", "."): value for key, value in overrides.items()}).settings


def _rows(*lengths: int) -> TokenRows:
    return TokenRows.of(
        EncodedRow([1] * length, [-100, *[1] * (length - 1)], line, length) for line, length in enumerate(lengths)
    )


def _count(order: list[int], lengths: list[int], losses: list[int], accumulation: int = 1, **more: Any) -> Workload:
    settings = _settings(
        training__per_device_train_batch_size=2, training__gradient_accumulation_steps=accumulation, **more
    )
    return count(np.array(order), np.array(lengths), np.array(losses), settings)


def test_a_micro_batch_is_as_long_as_its_longest_row() -> None:
    work = _count([0, 1, 2, FILLER], [10, 30, 20], [5, 6, 7], accumulation=2)
    assert work.largest == (MicroBatch(2, 30, True, 11),)
    assert work.computed_tokens == 2 * 30 + 2 * 20
    assert work.attended_tokens == 2 * 30 * 30 + 2 * 20 * 20
    assert work.predicted_tokens == 2 * 29 + 2 * 19
    assert (work.tokens, work.loss_tokens, work.steps, work.forward_passes) == (60, 18, 1, 2)


def test_rows_of_one_length_are_not_padded() -> None:
    work = _count([0, 1, 0, 1], [8, 8], [7, 7])
    assert work.largest == (MicroBatch(2, 8, False, 14),)
    assert work.forward_passes == 2


def test_the_largest_with_padding_and_without_are_both_considered() -> None:
    work = _count([0, 1, 2, 2, 0, 0], [10, 30, 20], [5, 6, 7])
    assert {(batch.length, batch.has_padding) for batch in work.largest} == {(30, True), (20, False)}


def test_of_two_as_long_the_one_with_more_loss_is_the_larger() -> None:
    work = _count([0, 0, 1, 1, 0, 0], [8, 8], [2, 6])
    assert work.largest == (MicroBatch(2, 8, False, 12),)


@pytest.mark.parametrize(("rows", "epochs", "steps"), [(17, 10.0, 20), (15_000, 3.0, 2_814), (1, 1.0, 1)])
def test_steps_are_the_trainers_whether_rows_were_counted_or_not(rows: int, epochs: float, steps: int) -> None:
    settings = _settings(training__num_train_epochs=epochs, training__max_seq_length=128)
    plan = order_batches(settings, _rows(*[128] * rows))
    bound, counted = full_length(settings, rows), workload_of(plan, settings)
    assert bound.steps == counted.steps == plan.steps == steps
    assert bound.tokens == counted.tokens == plan.tokens[-1]
    assert bound.computed_tokens == counted.computed_tokens


def test_a_plan_is_counted_as_the_trainer_cuts_it() -> None:
    settings = _settings(training__num_train_epochs=2.0, training__per_device_train_batch_size=2)
    plan = order_batches(settings, _rows(*range(5, 45)))
    work = workload_of(plan, settings)
    assert work.tokens == plan.tokens[-1]
    assert work.steps == plan.steps
    assert work.loss_tokens == sum(plan.trainable_tokens)
    assert work.forward_passes == plan.steps * plan.batch_size // 2
    assert max(batch.length for batch in work.largest) == 44


def test_rows_laid_end_to_end_are_not_padded() -> None:
    settings = _settings(training__num_train_epochs=1.0, training__padding_free=True)
    plan = order_batches(settings, _rows(*range(10, 42)))
    work = workload_of(plan, settings)
    assert work.computed_tokens == work.tokens == plan.tokens[-1]
    assert {(batch.rows, batch.has_padding) for batch in work.largest} == {(1, True)}
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


@pytest.mark.parametrize(("number", "words"), [(None, "15,000 rows, each assumed full length: "), (7, "7 rows")])
def test_a_plan_says_what_it_took_for_the_rows(number: int | None, words: str) -> None:
    settings = _settings(data__train_file="nowhere/rows.jsonl")
    workloads, said = workloads_for(settings, number)
    assert words in said
    assert workloads(settings).tokens == (number or 15_000) * 3 * 4096


def test_rows_that_cannot_be_encoded_are_counted_as_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "LONGEST_ROW_BYTES", 100)
    monkeypatch.setattr(conversations, "_LONGEST_LINE_BYTES", 1000)
    for text, words in (
        ("{}\n\n{}", "2 lines of "),
        ("{}\n" + "x" * 2000, "15,000 rows, each assumed full length"),
    ):
        (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
        assert words in workloads_for(_settings(data__train_file=str(tmp_path / "a.jsonl")), None)[1]
