"""Two of torch's own attention kernels that transformers has no name for; registered with it under a name.

``varlen`` is ``torch.nn.attention.varlen``: FlashAttention on rows of any length laid one after the other, without
padding and without a mask. ``sdpa_cudnn`` is scaled_dot_product_attention with cuDNN's kernel instead of torch's
FlashAttention 2. Imports torch and transformers.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import flash_attention_mask, sdpa_mask

# torch 2.11 says it as a window without a right side.
_CAUSAL: dict[str, Any] = (
    {"is_causal": True} if "is_causal" in inspect.signature(varlen_attn).parameters else {"window_size": (-1, 0)}
)


def varlen_attention(  # noqa: PLR0913, PLR0917 - transformers' signature
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **_kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row.

    Args:
        module: The attention module; not asked.
        query: (rows, heads, tokens, head size), 16 bits, on CUDA.
        key: (rows, key heads, tokens of the past and these, head size).
        value: As ``key``.
        attention_mask: (rows, tokens of the past and these), 1 where there is a token; None where there are no others.
        dropout: Of attention weights; none is known here.
        scaling: Of the scores; the kernel knows ``head size ** -0.5`` alone.
        cu_seq_lens_q: Where each row laid end to end begins, and the end of the last, (rows + 1), int32; the tensors
            then hold one row.
        max_length_q: Tokens of the longest of these.

    Returns:
        (rows, tokens, heads, head size), and None for the weights, which are never made.

    Raises:
        ValueError: The kernel cannot compute what is asked for.
    """
    rows, heads, length, size = query.shape
    past = key.shape[2]
    if dropout or (scaling is not None and abs(scaling - size**-0.5) > 1e-6 * size**-0.5):
        raise ValueError("model.attn_implementation=varlen: torch's kernel knows no dropout and no other scaling")
    query, key, value = (tensor.transpose(1, 2).reshape(-1, tensor.shape[1], size) for tensor in (query, key, value))
    if cu_seq_lens_q is not None and max_length_q is not None:
        out = varlen_attn(query, key, value, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q, **_CAUSAL)
        return out.view(rows, length, heads, size), None
    if attention_mask is None:
        begins, past_begins = (_begins(torch.full((rows,), count, device=query.device)) for count in (length, past))
        out = varlen_attn(query, key, value, begins, past_begins, length, past, **_CAUSAL)
        return out.view(rows, length, heads, size), None
    there = attention_mask.bool()
    asked = there[:, -length:]
    kept, kept_past = (mask.flatten().nonzero().flatten() for mask in (asked, there))
    out = varlen_attn(
        query[kept],
        key[kept_past],
        value[kept_past],
        _begins(asked.sum(1)),
        _begins(there.sum(1)),
        length,
        past,
        **_CAUSAL,
    )
    padded = torch.zeros(rows * length, heads, size, dtype=out.dtype, device=out.device).index_copy(0, kept, out)
    return padded.view(rows, length, heads, size), None


def _begins(lengths: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)


def cudnn_attention(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
    """Compute what ``sdpa`` does with cuDNN's kernel, and with torch's others where cuDNN has none for it."""
    with sdpa_kernel(_CUDNN_FIRST, set_priority=True):
        out, _ = sdpa_attention_forward(*args, **kwargs)
    return out, None


_CUDNN_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def register() -> None:
    """Tell transformers of both, with the masks they take."""
    AttentionInterface.register("varlen", varlen_attention)
    AttentionMaskInterface.register("varlen", flash_attention_mask)
    AttentionInterface.register("sdpa_cudnn", cudnn_attention)
    AttentionMaskInterface.register("sdpa_cudnn", sdpa_mask)
