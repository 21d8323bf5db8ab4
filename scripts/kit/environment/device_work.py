"""The device probe's tests: a QLoRA step and calculations with known bugs, each compared with the right result.

Runs in the probe's child process only. Each function returns a sentence with its measurement, plus facts, and raises
``WrongResultError`` for a wrong result.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
from torch.nn import functional

Outcome = tuple[str, dict[str, Any]]

# NF4 with blocks of 64 reproduces normally distributed weights within about 9 % (norm of the difference over the norm
# of the weights; measured on bitsandbytes 0.50.2: 0.092 with double quantisation). Wrong constants give far larger
# errors, and an error near zero means that nothing was quantised.
NF4_ERROR_BOUNDS = (0.05, 0.13)
_WIDTH, _ROWS, _RANK = 256, 32, 8


class WrongResultError(Exception):
    """The device gave a wrong result."""


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference over the norm of ``expected``, in float32 on the CPU."""
    found, expected = found.detach().float().cpu(), expected.detach().float().cpu()
    return float((found - expected).norm() / expected.norm())


def require(error: float, limit: float, what: str) -> None:
    """Raise ``WrongResultError`` if an error is above its limit or NaN."""
    if not error <= limit:  # also true for NaN
        raise WrongResultError(f"{what} differs by {error:.3g} from the reference (allowed: {limit:g})")


def compute_dtype(device: str) -> torch.dtype:
    """Return a run's compute dtype: bf16 if the GPU has it, float16 before Ampere, float32 on a CPU."""
    if device == "cpu":
        return torch.float32
    # Not is_bf16_supported(): newer torch counts emulation as support.
    if device == "cuda" and torch.cuda.get_device_capability() < (8, 0):
        return torch.float16
    try:
        torch.ones(1, dtype=torch.bfloat16, device=device)
    except (TypeError, RuntimeError):
        return torch.float16
    return torch.bfloat16


def frozen_base(device: str, *, four_bit: bool) -> tuple[torch.nn.Module, float]:
    """Return a frozen linear on the device, in NF4 with double quantisation or float32, and its quantisation error."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(_WIDTH, _WIDTH, generator=generator) / _WIDTH**0.5
    if not four_bit:
        plain = torch.nn.Linear(_WIDTH, _WIDTH, bias=False)
        plain.weight = torch.nn.Parameter(weight, requires_grad=False)
        return plain.to(device), 0.0
    import bitsandbytes as bnb

    base = bnb.nn.Linear4bit(
        _WIDTH, _WIDTH, bias=False, compute_dtype=compute_dtype(device), compress_statistics=True, quant_type="nf4"
    )
    base.weight = bnb.nn.Params4bit(weight, requires_grad=False, compress_statistics=True, quant_type="nf4")
    base = base.to(device)
    restored = bnb.functional.dequantize_4bit(base.weight.data, base.weight.quant_state)
    error = relative_error(restored, weight)
    low, high = NF4_ERROR_BOUNDS
    if not low <= error <= high:
        raise WrongResultError(
            f"the dequantised NF4 weights differ by {error:.3g} from the originals (allowed: {low:g} to {high:g})"
        )
    return base, error


def train_step(device: str, *, four_bit: bool) -> Outcome:
    """Take one optimizer step on a LoRA pair before a quantised linear.

    The pair comes first so that its gradient passes through the quantised weights, as in a model.

    Raises:
        WrongResultError: A loss or gradient is not finite, the step changed nothing, or the loss did not fall.
    """
    base, error = frozen_base(device, four_bit=four_bit)
    generator = torch.Generator().manual_seed(1)
    dtype = compute_dtype(device) if four_bit else torch.float32
    rows = torch.randn(_ROWS, _WIDTH, generator=generator).to(device)
    wanted = torch.randn(_ROWS, _WIDTH, generator=generator).to(device)
    down = torch.nn.Parameter((torch.randn(_RANK, _WIDTH, generator=generator) / _WIDTH**0.5).to(device))
    up = torch.nn.Parameter(torch.zeros(_WIDTH, _RANK, device=device))
    optimizer = torch.optim.AdamW([down, up], lr=0.03)

    def loss() -> torch.Tensor:
        hidden = rows + functional.linear(functional.linear(rows, down), up)
        return functional.mse_loss(base(hidden.to(dtype)).float(), wanted)

    before = loss()
    before.backward()
    gradient = up.grad
    if gradient is None or not bool(torch.isfinite(gradient).all()) or float(gradient.abs().sum()) == 0.0:
        raise WrongResultError("the gradient of the LoRA pair is missing, zero or not finite")
    optimizer.step()
    with torch.no_grad():
        first, second = float(before.detach()), float(loss())
    if not (math.isfinite(first) and math.isfinite(second)):
        raise WrongResultError(f"the loss is not finite: {first} before the step, {second} after")
    if not second < first:
        raise WrongResultError(f"one step changed the loss from {first:.4f} to {second:.4f}; it must fall")
    kind = "NF4 with double quantisation" if four_bit else "float32, without 4-bit"
    facts = {"trained_in_4bit": four_bit, "nf4_error": round(error, 4)}
    return f"{kind}, loss {first:.4f} -> {second:.4f} in one step", facts


def bf16_matmul(device: str) -> Outcome:
    """Compare a bf16 matrix product with float64 on the CPU."""
    generator = torch.Generator().manual_seed(2)
    left, right = (torch.randn(512, 512, generator=generator).bfloat16() for _ in range(2))
    found = left.to(device) @ right.to(device)
    error = relative_error(found, left.double() @ right.double())
    require(error, 0.01, "a bf16 matrix product")
    return f"off by {error:.2g} from float64", {"bf16_matmul_error": round(error, 6)}


def reference_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return causal attention by its definition, float32 on the CPU. Shapes: (batch, heads, length, head size)."""
    query, key, value = (tensor.float().cpu() for tensor in (query, key, value))
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, float("-inf")).softmax(-1) @ value


def _query_key_value(length: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(1, 4, length, 64, generator=generator).to(dtype) for _ in range(3))
    return query, key, value


def flash_attention(device: str) -> Outcome:
    """Compare flash-attn's causal attention with its definition."""
    flash_attn_func = importlib.import_module("flash_attn").flash_attn_func
    tensors = _query_key_value(256, torch.bfloat16)
    # flash-attn takes (batch, length, heads, head size).
    found = flash_attn_func(*(tensor.to(device).transpose(1, 2) for tensor in tensors), causal=True).transpose(1, 2)
    error = relative_error(found, reference_attention(*tensors))
    require(error, 0.02, "flash-attn's causal attention")
    return f"off by {error:.2g} from the definition", {"flash_attention_error": round(error, 6)}


def causal_attention(device: str) -> Outcome:
    """Compare causal SDPA without gradients with its definition, in shapes that leaked future tokens on MPS.

    pytorch#195910 (torch 2.11 to 2.12.1): float16 and bf16, from length 64; pytorch#174861 (before 2.11): longer ones.
    """
    worst = 0.0
    for dtype in (torch.float16, torch.bfloat16):
        for length in (64, 1100):
            tensors = _query_key_value(length, dtype)
            with torch.no_grad():
                query, key, value = (tensor.to(device) for tensor in tensors)
                found = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            error = relative_error(found, reference_attention(*tensors))
            require(error, 0.02, f"causal attention in {str(dtype)[6:]} at length {length} (pytorch#195910, #174861)")
            worst = max(worst, error)
    return f"off by {worst:.2g} at most from the definition", {"causal_attention_error": round(worst, 6)}


def transposed_matmul(device: str) -> Outcome:
    """Compare float32 products of a transposed view, after large allocations, with float64.

    pytorch#193487 (torch 2.7 to 2.13.0): wrong by 10 to 30 % depending on earlier allocations, so a pass is no proof;
    ``device_checks`` checks the version too.
    """
    generator = torch.Generator().manual_seed(4)
    batch = torch.randn(20, 20_000, 25, generator=generator)
    expected = batch.double().transpose(-1, -2) @ batch.double()
    worst = 0.0
    for turn in range(4):
        ballast = [torch.zeros(4_000_000 * (turn + size), device=device) for size in range(1, 4)]
        del ballast
        on_device = batch.to(device)
        error = relative_error(on_device.transpose(-1, -2) @ on_device, expected)
        require(error, 1e-3, "a float32 matrix product with a transposed left side (pytorch#193487)")
        worst = max(worst, error)
    return f"off by {worst:.2g} at most from float64", {"transposed_matmul_error": float(f"{worst:.3g}")}
