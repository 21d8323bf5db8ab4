"""torch's own attention for rows of any length, under a name that transformers knows: ``varlen``.

``torch.nn.attention.varlen`` is FlashAttention on rows laid one after the other, without padding and without a mask.
transformers has no name for it. With neither the rows' beginnings nor a padding mask, the rows are whole.
What it cannot compute it refuses, and never computes as something else. Imports torch and transformers.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None

# torch 2.10 takes `is_causal`; from 2.11 on a window without a right side, and a scaling; 2.15 also whether heads
# share keys.
_KNOWN = frozenset(inspect.signature(varlen_attn).parameters) if varlen_attn else frozenset()
_TYPES = (torch.bfloat16, torch.float16)
_NAME = "model.attn_implementation: varlen"


class _Rows(NamedTuple):
    """Where the rows of queries and of keys begin, the end of the last included, and the tokens of the longest."""

    begins: torch.Tensor
    past_begins: torch.Tensor
    longest: int
    past_longest: int


def varlen_attention(  # noqa: PLR0913, PLR0917 - transformers' signature
    _module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row.

    Args:
        query: (rows, heads, tokens, head size), on CUDA.
        key: (rows, key heads, tokens of the past and these, head size).
        value: As ``key``.
        attention_mask: What ``row_mask`` made of the inputs: (rows, tokens of the past and these), true where there is
            a token; or where each row begins, as ``cu_seq_lens_q``; None where every row is whole.
        dropout: Of attention weights; the kernel has none.
        scaling: Of the scores; None for ``head size ** -0.5``.
        sliding_window: Tokens that each sees, itself included; None for all before it.
        cu_seq_lens_q: Where each row laid end to end begins, and the end of the last, (rows + 1), int32.
        max_length_q: Tokens of the longest of these.
        others: What transformers hands every kernel.

    Returns:
        (rows, tokens, heads, head size), and None for the weights, which are never made.

    Raises:
        ValueError: The kernel cannot compute what is asked for.
    """
    if dropout:
        raise ValueError(f"{_NAME} has no attention dropout; use sdpa")
    if unknown := [name for name in ("softcap", "s_aux") if others.get(name) is not None]:
        raise ValueError(f"{_NAME} does not support {', '.join(unknown)}; use eager")
    count, heads, length, size = query.shape
    query, key, value = (
        tensor.transpose(1, 2).flatten(0, 1) for tensor in _in_16_bits(query, key, value)
    )  # (tokens of all rows, heads, head size)
    past = len(key) // count
    begins, padding, kept = cu_seq_lens_q, attention_mask, None
    if attention_mask is not None and attention_mask.ndim == 1:
        begins, padding = attention_mask if begins is None else begins, None
    if begins is not None:
        if padding is not None or past != length:
            raise ValueError(f"{_NAME} takes padding-free rows without a padding mask and without a cache")
        longest = max_length_q or int(begins.diff().max())
        rows = _Rows(begins, begins, longest, longest)
    elif padding is None:
        rows = _Rows(_whole(count, length, query.device), _whole(count, past, query.device), length, past)
    elif padding.shape != (count, past):
        raise ValueError(f"{_NAME} takes only a padding mask; use sdpa")
    else:
        there = padding.bool()
        asked = there[:, -length:]
        rows = _Rows(_begins(asked.sum(1)), _begins(there.sum(1)), length, past)
        kept, past_kept = (mask.flatten().nonzero().flatten() for mask in (asked, there))
        query, key, value = query[kept], key[past_kept], value[past_kept]
    out = varlen_attn(query, key, value, *rows, **_options(query, key, rows.past_longest, scaling, sliding_window))
    if kept is not None:
        out = out.new_zeros(count * length, heads, size).index_copy(0, kept, out)
    return out.view(count, length, heads, size), None


def _in_16_bits(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Cast as autocast does for torch's other kernels: rotary embeddings leave queries and keys in float32."""
    device, dtype = tensors[0].device.type, tensors[0].dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    if dtype not in _TYPES:
        raise ValueError(f"{_NAME} takes bfloat16 or float16, not {dtype}; use sdpa")
    return tuple(tensor.to(dtype) for tensor in tensors)


def _options(
    query: torch.Tensor, key: torch.Tensor, longest: int, scaling: float | None, window: int | None
) -> dict[str, Any]:
    """Say in this torch's words: causal, within a window where a row is longer than it, scaled."""
    options: dict[str, Any] = {"enable_gqa": query.shape[1] != key.shape[1]} if "enable_gqa" in _KNOWN else {}
    reaches = window is not None and longest > window
    if "window_size" in _KNOWN:
        return {**options, "window_size": (window - 1 if window and reaches else -1, 0), "scale": scaling}
    if reaches:
        raise ValueError(f"{_NAME} needs torch 2.11 for the model's sliding window of {window:,} tokens; use sdpa")
    if scaling is not None and abs(scaling * query.shape[-1] ** 0.5 - 1) > 1e-6:  # noqa: PLR2004 - rounding
        raise ValueError(f"{_NAME} has no custom scaling before torch 2.11; use sdpa")
    return {**options, "is_causal": True}


def _whole(count: int, length: int, device: torch.device) -> torch.Tensor:
    return torch.arange(0, (count + 1) * length, length, device=device, dtype=torch.int32)


def _begins(lengths: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)


def row_mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    """Say which tokens are padding, as for FlashAttention; or where rows begin that positions alone tell apart.

    Returns:
        (rows, tokens of the past and these), true where there is a token; or where each row begins and the end of the
        last, (rows + 1), int32; None where every row is whole.

    Raises:
        ValueError: The rows cannot be told apart so.
    """
    mask: torch.Tensor | None = flash_attention_mask(*args, **kwargs)
    length = kwargs["q_length"]
    # transformers says so where attention is not just causal: packed rows, or a mask that a caller made.
    if kwargs.get("allow_is_causal_skip", True) or length == 1:
        return mask
    if kwargs.get("use_vmap") or kwargs["batch_size"] != 1 or mask is not None or kwargs["kv_length"] != length:
        raise ValueError(f"{_NAME} takes causal rows, padded or padding-free; use sdpa")
    at = torch.arange(1, length, device=kwargs["device"])
    is_joined = kwargs["mask_function"](torch.zeros_like(at), torch.zeros_like(at), at, at - 1)
    begins = at[~is_joined]
    return torch.cat([begins.new_zeros(1), begins, begins.new_full((1,), length)]).to(torch.int32)


def register() -> None:
    """Tell transformers of it, where this torch has it."""
    if varlen_attn is not None:
        AttentionInterface.register("varlen", varlen_attention)
        AttentionMaskInterface.register("varlen", row_mask)
