"""Two evaluations are the same within what rounding explains, and no further."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="needs the libraries: make setup")

import torch
from transformers import AutoModelForCausalLM

from deep_base import write_deep_base
from kit.config.resolve import resolve
from kit.data.encoding import EncodedRow
from kit.use.rounding import loss_rounding
from kit.use.scores import RowLosses, row_losses
from small_run import CONFIG

if TYPE_CHECKING:
    from pathlib import Path

    from kit.config.settings import Settings

SETTINGS = resolve(CONFIG, ["quantization.load_in_4bit=false"]).settings
GENERATOR = torch.Generator().manual_seed(0)
ROWS = [
    EncodedRow(ids, [-100, *ids[1:]], line, len(ids))
    for line in range(8)
    for ids in [torch.randint(3, 256, (40 + line,), generator=GENERATOR).tolist()]
]


def computed_in(dtype: str, settings: Settings = SETTINGS) -> Settings:
    return replace(settings, model=replace(settings.model, torch_dtype=dtype))


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_deep_base(tmp_path_factory.mktemp("deep"))


def loaded(folder: Path, dtype: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(str(folder), torch_dtype=getattr(torch, dtype))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_other_batches_of_a_deep_model_are_within_it(deep: Path, dtype: str) -> None:
    model = loaded(deep, dtype)
    one, eight = (row_losses(model, ROWS, batch_size=size) for size in (1, 8))
    bound = loss_rounding(model, one, computed_in(dtype))
    assert abs(one.mean - eight.mean) <= bound < (0.2 if dtype == "bfloat16" else 1e-4)


def test_the_same_weights_computed_in_sixteen_bits_and_in_float32_are_within_the_coarser_ones(deep: Path) -> None:
    coarse, fine = (row_losses(loaded(deep, dtype), ROWS, batch_size=8) for dtype in ("bfloat16", "float32"))
    bound = loss_rounding(loaded(deep, "bfloat16"), coarse, computed_in("bfloat16"))
    assert bound / 50 < abs(coarse.mean - fine.mean) <= bound


def test_a_thousandth_is_more_than_float32_explains(tiny_base: Path) -> None:
    model = loaded(tiny_base, "float32")
    found = row_losses(model, ROWS, batch_size=8)
    assert 0 < loss_rounding(model, found, SETTINGS) < 1e-4 * found.mean


def test_the_spread_is_that_of_the_answers_logits(tiny_base: Path) -> None:
    model = loaded(tiny_base, "float32")
    row = replace(ROWS[0], labels=[*[-100] * 10, *ROWS[0].input_ids[10:]])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, 9:-1]
    expected = logits.double().var(dim=-1, correction=0).mean().sqrt()
    assert row_losses(model, [row], batch_size=1).logit_spread == pytest.approx(float(expected), rel=1e-5)


def test_the_coarsest_type_and_the_square_root_of_the_tokens_count(tiny_base: Path) -> None:
    model, few = loaded(tiny_base, "float32"), RowLosses((0.0,), (100,), 1.0)
    many = replace(few, tokens=(10_000,))
    whole = loss_rounding(model, few, SETTINGS)
    assert whole == pytest.approx(10 * loss_rounding(model, many, SETTINGS))
    for half in (computed_in("bfloat16"), replace(SETTINGS, training=replace(SETTINGS.training, bf16=True))):
        assert loss_rounding(model, few, half) > 1000 * whole
    assert loss_rounding(model, replace(few, logit_spread=2.0), SETTINGS) == pytest.approx(2 * whole)
