"""The comparison passes a merge that was rounded, and notices one that went wrong."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch", reason="needs the libraries: make setup")

import torch

from kit.adapter.comparison import compare, relative_difference, tolerance
from kit.data.encoding import EncodedRow

ROW = EncodedRow([1, 2, 3], [-100, 2, 3], 1, 3)


def test_the_tolerance_is_half_a_unit_in_the_last_place_for_each_matrix_as_a_random_walk() -> None:
    summing = 2**-24 * math.sqrt(64)
    assert tolerance("bfloat16", [(8, 64), (8,)]) == 2**-8 + summing
    assert tolerance("float16", [(8, 64)]) == 2**-11 + summing
    assert tolerance("bfloat16", [(64, 8), (8, 64)] * 113) == pytest.approx((2**-8 + summing) * math.sqrt(226))


def test_what_is_added_to_every_logit_makes_no_difference() -> None:
    logits = [torch.randn(5, 7)]
    assert relative_difference(logits, [logits[0] + 3]) == pytest.approx(0, abs=1e-6)
    assert relative_difference(logits, [logits[0] * 1.01]) == pytest.approx(0.01, rel=1e-4)


def test_a_merge_that_forgot_the_adapter_is_not_close() -> None:
    base, before = [torch.randn(3, 7)], [torch.randn(3, 7)]
    found = compare(base, before, base, [ROW], 0.02)
    assert not found.is_close
    assert found.can_tell
    assert found.difference == found.adapter_effect


def test_a_merge_that_was_rounded_is_close_and_has_the_same_loss() -> None:
    before = [torch.randn(3, 7)]
    found = compare([torch.randn(3, 7)], before, [before[0] * 1.001], [ROW], 0.02)
    assert found.is_close
    assert found.same_first_choice == 1
    expected = torch.nn.functional.cross_entropy(before[0][:2], torch.tensor([2, 3]))
    assert found.loss_before == pytest.approx(float(expected))
    assert found.loss_after == pytest.approx(found.loss_before, rel=0.01)


def test_an_adapter_too_weak_to_be_missed_is_said() -> None:
    before = [torch.randn(3, 7)]
    assert not compare([before[0] * 1.001], before, before, [ROW], 0.02).can_tell


def test_answers_that_are_not_numbers_are_not_close() -> None:
    before = [torch.randn(3, 7)]
    assert not compare(before, before, [before[0] * math.nan], [ROW], 0.02).is_close
