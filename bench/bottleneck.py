"""What a step's time goes into: a profile's kernels, grouped, with what is left over. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

IDLE = "idle"
OTHER = "other"
# First match in a kernel's name, lower case; the more telling words come first: FlashAttention's and bitsandbytes'
# kernels are full of words of the others.
_GROUPS = (
    ("optimizer", ("optimizer", "adam", "multi_tensor_apply")),
    ("dequantise", ("dequant", "kgemm_4bit", "gemm_4bit", "gemv_4bit", "nf4", "bitsandbytes")),
    ("attention", ("flash", "fmha", "attention", "sdpa", "softmax_warp")),
    ("loss", ("nll", "cross_entropy", "log_softmax", "logsumexp", "fused_lm_head", "chunked", "entropy")),
    (
        "matmul",
        (
            "gemm",
            "nvjet",
            "cutlass",
            "cublas",
            "xmma",
            "aten::mm",
            "aten::bmm",
            "addmm",
            "matmul",
            "mmbackward",
            "linear",
        ),
    ),
    ("copies", ("memcpy", "memset", "aten::copy_", "aten::clone", "aten::cat", "aten::contiguous", "aten::fill_")),
    (
        "norm and elementwise",
        (
            *(
                "elementwise",
                "vectorized",
                "reduce",
                "norm",
                "triton_",
                "silu",
                "sigmoid",
                "rsqrt",
                "dropout",
                "softmax",
            ),
            *("aten::mul", "aten::add", "aten::div", "aten::sub", "aten::pow", "aten::mean", "aten::sum", "aten::neg"),
            *("aten::bernoulli", "aten::index", "aten::embedding", "aten::_to_copy", "distribution_"),
        ),
    ),
)
# What the next thing to try is, where a group takes most of a step.
_NEXT = {
    "matmul": "matrix products are a step's useful work; recompute fewer layers to have fewer of them",
    "attention": "a faster attention kernel: see the line `attention` of a run's log",
    "dequantise": "larger micro-batches: a matrix is dequantised once per micro-batch, however many rows it has",
    "loss": "training.use_liger_kernel, or fewer scored tokens",
    "norm and elementwise": "training.torch_compile or training.use_liger_kernel, which fuse them",
    "optimizer": "a fused optimizer, or more accumulation",
    "copies": "fewer casts: one dtype for the residual stream and the adapter",
    IDLE: "the device waits for Python: larger micro-batches, or training.torch_compile",
    OTHER: "the kernels below by name",
}
_SHOWN = 10


@dataclass(frozen=True)
class Kernel:
    """One kernel, or on a CPU one operation: its own time in all its calls."""

    name: str
    seconds: float
    calls: int


def group_of(name: str) -> str:
    """Return what a kernel does, from its name."""
    lowered = name.lower()
    return next((group for group, words in _GROUPS if any(word in lowered for word in words)), OTHER)


def summarise(kernels: Sequence[Kernel], seconds: float, steps: int) -> dict[str, Any]:
    """Return the shares of some steps' time.

    Args:
        kernels: What ran, one after the other.
        seconds: What the steps took.
        steps: How many.
    """
    groups = dict.fromkeys((*(group for group, _ in _GROUPS), OTHER, IDLE), 0.0)
    for kernel in kernels:
        groups[group_of(kernel.name)] += kernel.seconds
    busy = sum(kernel.seconds for kernel in kernels)
    groups[IDLE] = max(0.0, seconds - busy)
    whole = max(seconds, busy)
    ranked = sorted(groups.items(), key=lambda item: -item[1])
    top = sorted(kernels, key=lambda kernel: -kernel.seconds)[:_SHOWN]
    return {
        "steps": steps,
        "seconds": seconds,
        "groups": {name: spent / whole for name, spent in ranked if spent},
        "top": [
            {"name": item.name, "group": group_of(item.name), "share": item.seconds / whole, "calls": item.calls}
            for item in top
        ],
        "next": f"{ranked[0][0]}: {_NEXT[ranked[0][0]]}",
    }


def lines(profile: dict[str, Any]) -> list[str]:
    """Write a profile for a person."""
    per_step = 1000 * profile["seconds"] / profile["steps"]
    text = [f"profile of {profile['variant']}, {profile['workload']} rows: {per_step:,.0f} ms a step"]
    ranked = sorted(profile["groups"].items(), key=lambda item: -item[1])  # a ledger keeps no order
    text += [f"  {share:>6.1%}  {name}" for name, share in ranked]
    text.append("  by kernel:")
    text += [f"  {item['share']:>6.1%}  {item['group']:<20} {item['name'][:90]}" for item in profile["top"]]
    text.append(f"next bottleneck: {profile['next']}")
    return text
