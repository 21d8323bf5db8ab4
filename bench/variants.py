"""What is compared: one row for each lever, on two workloads, with trl's own defaults first and last."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any

from kit.data.encoding import IGNORE_INDEX, EncodedRow
from kit.data.token_rows import TokenRows
from kit.model.shape import MISTRAL_7B, ModelShape

BASELINE = "trl sft"
KIT = "kit defaults"
SMALL = ModelShape(259, 64, 160, 2, 4, 2, 16, 512)
_SHORTEST_SHARE = 16  # the shortest ragged row is a sixteenth of the longest
_PROMPT_SHARE = 4  # a quarter of each row is prompt


@dataclass(frozen=True)
class Scale:
    """How large the benchmark is.

    Attributes:
        name: ``7b`` for a GPU, ``small`` for a CPU.
        shape: The base model's sizes.
        length: Tokens of a full row.
        full_rows: Rows a step of the full workload, all of ``length``.
        ragged_rows: Rows a step of the ragged workload.
        warm_up: Steps before the clock counts.
        steps: Steps that are timed.
    """

    name: str
    shape: ModelShape
    length: int
    full_rows: int
    ragged_rows: int
    warm_up: int
    steps: int


SCALES = {
    "7b": Scale("7b", MISTRAL_7B, 4096, 4, 16, 2, 6),
    "small": Scale("small", SMALL, 64, 4, 8, 1, 3),
}
# Enough steps of a small model to see what a trainer adds to a step.
STEADY = Scale("steady", ModelShape(259, 128, 384, 4, 4, 2, 32, 512), 64, 16, 16, 5, 12)


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: What it is called.
        changes: Overrides of the configuration, beyond the kit's defaults.
        workloads: Which of ``full`` and ``ragged`` it is measured on.
        cuda_only: What it needs is only there on an NVIDIA GPU.
        package: What it needs besides the stack; empty for nothing.
        full_rows_at_once: Rows of a micro-batch of full rows; 0 for all rows of an update.
        ragged_rows_at_once: The same for ragged rows; 0 for as many as full rows.
        patches: It changes its libraries for good, and so has a process of its own.
    """

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    workloads: tuple[str, ...] = ("full", "ragged")
    cuda_only: bool = False
    package: str = ""
    full_rows_at_once: int = 0
    ragged_rows_at_once: int = 0
    patches: bool = False


_UNCHECKED = {"training.gradient_checkpointing": False, "lora.lora_dropout": 0.0}
_END_TO_END = {"training.padding_free": True}
_VARLEN = {**_END_TO_END, "model.attn_implementation": "varlen"}
_FA4 = {"model.attn_implementation": "flash_attention_4"}
# What trl's own trainer does by default, so that only the trainers differ: it rounds the adapter of a 4-bit base.
AS_TRL = {
    "lora.adapter_dtype": "bfloat16",
    "training.optim": "adamw_torch_fused",
    "training.sort_within_update": False,
    "training.logging_steps": 10,
}
_EVERY = "training.gradient_checkpointing_every_n_layers"
# In the order of what one wants to know first.
VARIANTS = (
    Variant(BASELINE, {"training.sort_within_update": False}),
    Variant(KIT, {"training.padding_free": "auto"}),
    Variant("no checkpointing, dropout 0", _UNCHECKED, full_rows_at_once=2, ragged_rows_at_once=2),
    Variant("padded rows", {}, ("ragged",)),
    Variant(
        "rows end to end, no checkpointing, dropout 0",
        {**_VARLEN, **_UNCHECKED},
        ("ragged",),
        cuda_only=True,
        ragged_rows_at_once=2,
    ),
    Variant("every 2nd layer checkpointed", {_EVERY: 2}, full_rows_at_once=2, ragged_rows_at_once=2),
    Variant("no checkpointing", {"training.gradient_checkpointing": False}, ("full",), full_rows_at_once=1),
    Variant("dropout 0", {"lora.lora_dropout": 0.0}, ("full",)),
    Variant("adapter in bfloat16", {"lora.adapter_dtype": "bfloat16"}, ("full",)),
    Variant(
        "Liger kernels",
        {"training.use_liger_kernel": True},
        cuda_only=True,
        package="liger-kernel",
        patches=True,
    ),
    Variant(
        "Liger kernels, no checkpointing, dropout 0",
        {**_UNCHECKED, "training.use_liger_kernel": True},
        ("full",),
        cuda_only=True,
        package="liger-kernel",
        full_rows_at_once=2,
        patches=True,
    ),
    Variant(
        "compiled, no checkpointing, dropout 0",
        {**_UNCHECKED, "training.torch_compile": True},
        ("full",),
        cuda_only=True,
        full_rows_at_once=2,
        patches=True,
    ),
    Variant(
        "FlashAttention 4, no checkpointing, dropout 0",
        {**_UNCHECKED, **_FA4},
        ("full",),
        cuda_only=True,
        package="flash-attn-4",
        full_rows_at_once=2,
        patches=True,
    ),
    Variant(
        "FlashAttention 4, rows end to end, no checkpointing, dropout 0",
        {**_UNCHECKED, **_FA4, **_END_TO_END},
        ("ragged",),
        cuda_only=True,
        package="flash-attn-4",
        ragged_rows_at_once=2,
        patches=True,
    ),
    Variant("rows in the order drawn", {"training.sort_within_update": False}, ("ragged",)),
    Variant(
        "flex attention, rows end to end",
        {"model.attn_implementation": "flex_attention", **_END_TO_END},
        ("ragged",),
        cuda_only=True,
        ragged_rows_at_once=4,
        patches=True,
    ),
)


def rows_of(workload: str, scale: Scale) -> TokenRows:
    """Make the rows of a workload, enough for all its steps, the same on every machine.

    ``ragged`` lengths are log-uniform between a sixteenth of the full length and the full length.
    """
    draw = random.Random(workload)  # noqa: S311 - benchmark rows, not a secret
    each = scale.full_rows if workload == "full" else scale.ragged_rows
    rows = []
    for line in range(1, each * (scale.warm_up + scale.steps) + 1):
        share = 1.0 if workload == "full" else math.exp(draw.uniform(-math.log(_SHORTEST_SHARE), 0.0))
        length = max(4, round(scale.length * share))
        ids = [draw.randrange(3, scale.shape.vocab_size) for _ in range(length)]
        prompt = max(1, length // _PROMPT_SHARE)
        rows.append(EncodedRow(ids, [IGNORE_INDEX] * prompt + ids[prompt:], line, length))
    return TokenRows.of(rows)


def overrides(variant: Variant, workload: str, scale: Scale, *, on_cuda: bool) -> dict[str, Any]:
    """Return what a measured run of the kit changes in ``configs/training_config_h100.yaml``."""
    rows = scale.full_rows if workload == "full" else scale.ragged_rows
    full = variant.full_rows_at_once or scale.full_rows
    micro = full if workload == "full" else variant.ragged_rows_at_once or full
    steps = scale.warm_up + scale.steps
    base: dict[str, Any] = {
        "training.max_seq_length": scale.length,
        "training.per_device_train_batch_size": micro,
        "training.gradient_accumulation_steps": rows // micro,
        "training.max_steps": steps,
        "training.save_steps": steps + 1,
        "training.logging_steps": steps + 1,
        "training.eval_steps": steps + 1,
        "training.padding_free": False,
        "training.report_to": "none",
        "data.val_file": None,
    }
    if not on_cuda:
        base |= {
            "training.optim": "adamw_torch",
            "training.bf16": False,
            "model.torch_dtype": "float32",
            "quantization.bnb_4bit_compute_dtype": "float32",
        }
    return base | variant.changes


def flop_per_token(shape: ModelShape, length: int) -> float:
    """Floating-point operations a trained token costs at least: forward, and backward through a frozen base.

    The weights get no gradient, so each linear layer costs 2 operations a parameter forward and 2 backward; causal
    attention scores half of ``length`` on average, twice forward and five times backward (FlashAttention 2 recomputes
    the scores). 32.5 GFLOP for Mistral-7B at 4096; the adapter's own work is not counted.
    """
    linear = shape.linear_parameters + shape.vocab_size * shape.hidden_size
    width = shape.num_attention_heads * shape.head_dim
    scores = 2 * (length / 2) * width * shape.num_hidden_layers
    return 4.0 * linear + (2 + 5) * scores
