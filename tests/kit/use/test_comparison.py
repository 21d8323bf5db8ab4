"""The comparison passes a merge that was rounded, and notices one that went wrong."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch", reason="needs the libraries: make setup")

import torch

from kit.data.encoding import EncodedRow
from kit.use.comparison import AdapterLogits, compare, relative_difference, tolerance

ROW = EncodedRow([1, 2, 3], [-100, 2, 3], 1, 3)


def test_the_logits_may_differ_by_twice_what_a_merge_in_memory_changes_or_by_one_rounding_of_their_own() -> None:
    assert tolerance(0.05, "bfloat16") == 0.1
    assert tolerance(0.0, "bfloat16") == 2**-8
    assert tolerance(0.0, "float32") == 2**-24


def test_what_is_added_to_every_logit_makes_no_difference() -> None:
    logits = [torch.randn(5, 7)]
    assert relative_difference(logits, [logits[0] + 3]) == pytest.approx(0, abs=1e-6)
    assert relative_difference(logits, [logits[0] * 1.01]) == pytest.approx(0.01, rel=1e-4)


def test_a_merge_that_forgot_the_adapter_is_not_close() -> None:
    base, before = [torch.randn(3, 7)], [torch.randn(3, 7)]
    found = compare(before, base, [ROW], "float32", AdapterLogits(0.02, relative_difference(before, base)))
    assert not found.is_close
    assert found.can_tell
    assert found.difference == found.adapter_effect


@pytest.mark.parametrize(("floor", "is_close"), [(0.01, True), (0.004, False)])
def test_a_merge_is_close_where_peft_s_own_is_as_far_away(floor: float, *, is_close: bool) -> None:
    before = [torch.randn(3, 7000)]
    after = [before[0] + 0.01 * torch.randn(3, 7000)]
    assert compare(before, after, [ROW], "float32", AdapterLogits(floor, 1.0)).is_close is is_close


def test_a_merge_that_was_rounded_has_the_same_loss() -> None:
    before = [torch.randn(3, 7)]
    found = compare(before, [before[0] * 1.001], [ROW], "float32", AdapterLogits(0.02, 1.0))
    assert found.is_close
    assert found.same_first_choice == 1
    expected = torch.nn.functional.cross_entropy(before[0][:2], torch.tensor([2, 3]))
    assert found.loss_before == pytest.approx(float(expected))
    assert found.loss_after == pytest.approx(found.loss_before, rel=0.01)


def test_an_adapter_too_weak_to_be_missed_is_said() -> None:
    before = [torch.randn(3, 7)]
    assert not compare(before, before, [ROW], "float32", AdapterLogits(0.02, 0.03)).can_tell


def test_answers_that_are_not_numbers_are_not_close() -> None:
    before = [torch.randn(3, 7)]
    assert not compare(before, [before[0] * math.nan], [ROW], "float32", AdapterLogits(0.02, 1.0)).is_close
