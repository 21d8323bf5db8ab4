"""Results on disk and in comparison: a missing number, or NaN, agrees with nothing."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.parity.results import CaseResult, Numbers, ParityError, Result, difference, read_reference, read_result

if TYPE_CHECKING:
    from pathlib import Path

NUMBERS = Numbers((5.0, 4.0), (1.0, 2.0), {"q_proj.lora_A": 0.5})


def test_equal_numbers_are_no_way_apart() -> None:
    assert (difference(NUMBERS, NUMBERS).loss, difference(NUMBERS, NUMBERS).gradient) == (0, 0)


def test_the_furthest_number_is_named() -> None:
    found = difference(Numbers((5.0, 4.04), (1.0, 2.0), {"q_proj.lora_A": 0.4}), NUMBERS)
    assert (found.loss, found.loss_at) == (pytest.approx(0.04 / 4.04), "update 2")
    assert (found.gradient, found.gradient_at) == (pytest.approx(0.2), "q_proj.lora_A in update 1")


@pytest.mark.parametrize(
    "other",
    [
        Numbers((5.0,), (1.0, 2.0), {"q_proj.lora_A": 0.5}),
        Numbers((5.0, math.nan), (1.0, 2.0), {"q_proj.lora_A": 0.5}),
        Numbers((), (), {}),
    ],
)
def test_what_is_missing_or_no_number_is_infinitely_far_off(other: Numbers) -> None:
    assert difference(other, NUMBERS).loss == math.inf
    assert difference(NUMBERS, other).loss == math.inf


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_numbers_out_of_anything_never_fail(anything: object) -> None:
    found = Numbers.from_json({"losses": anything, "gradient_norms": anything, "module_norms": anything})
    assert difference(found, NUMBERS).loss > 0


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"schema_version": 1, "cases": []}', '{"schema_version": 2}'])
def test_a_file_that_is_no_result_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "theirs.json"
    path.write_text(content)
    with pytest.raises(ParityError, match=r"theirs\.json: .+; "):
        read_result(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="cannot be read"):
        read_result(tmp_path / "nowhere.json")


def test_the_committed_reference_is_complete() -> None:
    contract, exact = read_reference()
    assert set(contract) == {"weights_sha256", "batch_sha256", "settings_sha256"}
    assert set(exact) == {"plain", "nf4"}
    for numbers in exact.values():
        assert (len(numbers.losses), len(numbers.gradient_norms), len(numbers.module_norms)) == (6, 6, 14)
        assert all(math.isfinite(value) for value in (*numbers.losses, *numbers.gradients().values()))
    assert difference(exact["plain"], exact["nf4"]).loss > 1e-3, "quantising must be seen"


def test_what_is_no_number_is_written_as_null_and_read_back_as_none(tmp_path: Path) -> None:
    broken = Result({}, {}, (CaseResult("float32", Numbers((math.inf, math.nan), (), {"x": math.nan})),))
    text = json.dumps(broken.as_json(), allow_nan=False)
    (tmp_path / "found.json").write_text(text)
    numbers = read_result(tmp_path / "found.json").numbers()["float32"]
    assert all(map(math.isnan, (*numbers.losses, *numbers.module_norms.values())))


def test_twelve_digits_are_kept() -> None:
    kept = Numbers((1 / 3,), (2e-9 / 3,), {"x": 1 / 7}).rounded()
    assert json.dumps([*kept.losses, *kept.gradient_norms]) == "[0.333333333333, 6.66666666667e-10]"
