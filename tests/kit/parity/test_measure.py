"""The kit's training agrees with the formulas, and a training with any one error does not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kit.parity.contract import CASES, why_not
from kit.parity.results import Numbers, difference, read_reference
from kit.stacks.stack import installed_stack

pytest.importorskip("torch", reason="needs the libraries: make setup")

from kit.data.encoding import IGNORE_INDEX, EncodedRow
from kit.data.token_rows import TokenRows
from kit.parity.measure import CanonicalModel, run_case, train

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.config.settings import Settings

CONTRACT, EXACT = read_reference()
FLOAT32 = CASES[0]


@pytest.fixture(scope="module")
def canon(tmp_path_factory: pytest.TempPathFactory) -> CanonicalModel:
    return CanonicalModel(tmp_path_factory.mktemp("canon"))


def test_what_is_trained_is_what_was_committed(canon: CanonicalModel) -> None:
    assert canon.contract == CONTRACT


def test_the_formulas_come_to_the_committed_numbers(canon: CanonicalModel) -> None:
    for name, numbers in canon.exact().items():
        found = difference(numbers, EXACT[name])
        assert max(found.loss, found.gradient) < 1e-9


@pytest.mark.parametrize(
    "case",
    [case if not case.bfloat16 else pytest.param(case, marks=pytest.mark.slow) for case in CASES],
    ids=lambda case: case.name,
)
def test_the_kit_trains_what_the_formulas_say(canon: CanonicalModel, case: Any) -> None:
    if reason := why_not(case, installed_stack(), "cpu"):
        pytest.skip(reason)
    found = run_case(canon, case, "cpu")
    assert found.numbers is not None, found.reason
    apart = difference(found.numbers, EXACT[case.mathematics])
    # Tighter than elsewhere: the tolerances leave room for other kinds of devices.
    assert apart.loss < case.loss_tolerance / 2
    assert apart.gradient < case.gradient_tolerance / 2


def test_a_case_that_breaks_is_told_and_not_raised(canon: CanonicalModel) -> None:
    found = run_case(canon, FLOAT32, "cpu", attention="none of these")
    assert found.failed
    assert found.reason


def _lora(**changes: Any) -> Callable[[Settings], Settings]:
    return lambda settings: replace(settings, lora=replace(settings.lora, **changes))


def _training(**changes: Any) -> Callable[[Settings], Settings]:
    return lambda settings: replace(settings, training=replace(settings.training, **changes))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_lora(lora_alpha=17), id="another scaling"),
        pytest.param(_lora(lora_dropout=0.05), id="dropout left on", marks=pytest.mark.slow),
        pytest.param(_lora(adapter_dtype="bfloat16"), id="a rounded adapter", marks=pytest.mark.slow),
        pytest.param(_training(weight_decay=0.0), id="no decay", marks=pytest.mark.slow),
        pytest.param(_training(max_grad_norm=1.6), id="other clipping", marks=pytest.mark.slow),
        pytest.param(_training(lr_scheduler_type="linear"), id="another schedule", marks=pytest.mark.slow),
    ],
)
def test_a_training_with_another_setting_does_not_agree(
    canon: CanonicalModel, change: Callable[[Settings], Settings]
) -> None:
    assert _is_red(train(change(canon.settings(FLOAT32, "eager")), canon.plan, canon.weights, "cpu"))


def _without_its_end(row: EncodedRow) -> EncodedRow:
    return replace(row, labels=[*row.labels[:-1], IGNORE_INDEX])


def _one_token_early(row: EncodedRow) -> EncodedRow:
    first = next(place for place, label in enumerate(row.labels) if label != IGNORE_INDEX)
    labels = list(row.labels)
    labels[first - 1] = row.input_ids[first - 1]
    return replace(row, labels=labels)


@pytest.mark.parametrize(
    "change", [_without_its_end, pytest.param(_one_token_early, marks=pytest.mark.slow)], ids=["no end", "early"]
)
def test_a_wrong_mask_does_not_agree(canon: CanonicalModel, change: Callable[[EncodedRow], EncodedRow]) -> None:
    plan = replace(canon.plan, rows=TokenRows.of(change(row) for row in canon.plan.rows))
    assert _is_red(train(canon.settings(FLOAT32, "eager"), plan, canon.weights, "cpu"))


@pytest.mark.slow
def test_one_changed_weight_does_not_agree(canon: CanonicalModel) -> None:
    name = "model.layers.0.self_attn.k_proj.lora_A.weight"
    changed = {**canon.weights, name: canon.weights[name].copy()}
    changed[name][0, 0] += np.float32(2**-3)
    assert _is_red(train(canon.settings(FLOAT32, "eager"), canon.plan, changed, "cpu"))


def _is_red(numbers: Numbers) -> bool:
    found = difference(numbers, EXACT["plain"])
    return found.loss > FLOAT32.loss_tolerance or found.gradient > FLOAT32.gradient_tolerance
