"""The formulas' NF4 equals bitsandbytes', and no canonical weight lies where rounding decides."""

from __future__ import annotations

import numpy as np
import pytest

from kit.parity.four_bit import dynamic_codes, nf4_and_back
from kit.parity.weights import canonical_weights
from kit.stacks.stack import installed_stack

SIZES = {
    f"model.layers.{layer}.{name}.weight": size
    for layer in range(4)
    for name, size in {
        "self_attn.q_proj": (128, 128),
        "self_attn.k_proj": (64, 128),
        "mlp.up_proj": (384, 128),
        "mlp.down_proj": (128, 384),
    }.items()
}
needs_4bit = pytest.mark.skipif(
    "cpu" not in installed_stack().traits.four_bit_platforms, reason="this stack has no 4-bit on a CPU"
)


@needs_4bit
def test_the_eight_bit_codes_are_those_of_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional", reason="needs the libraries: make setup")
    assert np.abs(functional.create_dynamic_map().numpy() - dynamic_codes()).max() < 1e-7


@needs_4bit
@pytest.mark.parametrize("name", list(SIZES))
def test_what_is_left_of_the_weights_is_what_bitsandbytes_leaves(name: str) -> None:
    functional = pytest.importorskip("bitsandbytes.functional", reason="needs the libraries: make setup")
    import torch

    weights = canonical_weights({name: SIZES[name]})[name]
    quantised, state = functional.quantize_4bit(torch.from_numpy(weights), compress_statistics=True, quant_type="nf4")
    theirs = functional.dequantize_4bit(quantised, state).numpy()
    mine = nf4_and_back(weights)
    assert np.abs(theirs - mine).max() < 1e-7
    assert np.abs(mine - weights).max() > 1e-3, "quantising lost nothing, so it would not be noticed"


def test_a_block_of_equal_scales_keeps_its_ends() -> None:
    weights = np.tile(np.linspace(-1, 1, 64, dtype=np.float32), (8, 1))
    weights[::2] *= 2
    kept = nf4_and_back(weights)
    assert kept[0, -1] == pytest.approx(2)
    assert kept[1, 0] == pytest.approx(-1, rel=1e-2)  # its scale is the smallest: 8 bits have no -1
