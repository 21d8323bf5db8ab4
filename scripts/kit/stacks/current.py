"""Today's libraries: transformers 5, torch 2.10 and later, peft 0.21, trl 1.16, bitsandbytes 0.50.

Imports none of them before a function is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kit.model.reader import Reader
from kit.stacks.generation import Generation, Traits
from kit.stacks.locks import CURRENT, M4

_NUMBER = "row"

TRAITS = Traits(
    name="current",
    reader=Reader("current", "5", frozenset({"mistral", "llama", "qwen2", "qwen3"})),
    four_bit_platforms=frozenset({"h100", "cuda", "cpu", "m4"}),
    # The last: auto does not come to it before it was measured on rows laid end to end.
    attention=(
        *("flash_attention_3", "flash_attention_2", "sdpa", "varlen", "flex_attention", "eager"),
        "flash_attention_4",
    ),
    cuda="12.8",
    newest_capability=None,
    fused_adamw_off_cuda=True,
    grows_allocator=True,
    padding_free=True,
    compiled_layers=True,  # bitsandbytes 0.50
    liger_kernel=True,
    empty_cache_steps=True,
    partial_checkpointing_from=(5, 17),
    weighs_by_tokens=True,
    loss_in_tiles=True,
    rotary_in_layers=False,
    checkpoints_save_arguments=False,
    linear_casts_back=False,
    norm_keeps_squares=False,
    four_bit_keeps_input=False,
    fused_repeats_keys=False,
    held_to="within 5 % of what an H100 80GB HBM3 allocated in 13 configurations",
)


def load_model(folder: str, dtype: Any, options: Mapping[str, Any]) -> Any:
    """Load a causal language model."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options)


def training_arguments(shared: dict[str, Any], empty_cache_steps: int | None) -> Any:
    """Build trl's arguments, for rows that are tokenised and cut already."""
    from trl import SFTConfig

    emptied = {} if empty_cache_steps is None else {"torch_empty_cache_steps": empty_cache_steps}
    return SFTConfig(**shared, **emptied, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None)


def trainer_options(tokenizer: Any, _max_seq_length: int) -> dict[str, Any]:
    """Return what trl wants of a trainer."""
    return {"processing_class": tokenizer}


class _Unpack:
    """What ``datasets`` calls on a batch of rows' numbers."""

    def __init__(self, columns: Callable[[Sequence[int]], dict[str, list[list[int]]]] | None) -> None:
        self.columns = columns

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[list[int]]]:
        return self.columns(batch[_NUMBER]) if self.columns else {}

    def __reduce__(self) -> tuple[Any, ...]:
        # datasets pickles what it calls for a fingerprint, and the rows are large.
        return _Unpack, (None,)


def dataset(order: Sequence[int], columns: Callable[[Sequence[int]], dict[str, list[list[int]]]]) -> Any:
    """Wrap rows in the only thing that trl 1.16 takes, a ``datasets.Dataset``: one of the rows' numbers."""
    import numpy as np
    from datasets import Dataset

    return Dataset.from_dict({_NUMBER: np.asarray(order, np.int32)}).with_transform(_Unpack(columns))


GENERATION = Generation(
    traits=TRAITS,
    known={"transformers": ((5,), (6,)), "torch": ((2,), (3,)), "trl": ((1,), (2,)), "peft": ((0,), (1,))},
    locks={"Linux": CURRENT, "Darwin": M4},
    image_build_bytes=18_000_000_000,
    load_model=load_model,
    training_arguments=training_arguments,
    trainer_options=trainer_options,
    dataset=dataset,
)
