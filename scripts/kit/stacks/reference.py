"""The libraries of 2023: transformers 4.36, torch 2.1, peft 0.7, trl 0.7.4, bitsandbytes 0.41.

Imports none of them before a function is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kit.model.reader import Reader
from kit.stacks.generation import Generation, Traits
from kit.stacks.locks import REFERENCE

TRAITS = Traits(
    name="reference",
    reader=Reader(
        "reference",
        "4.36",
        frozenset({"mistral", "llama"}),
        older_words=True,
        needs_format=True,
        older_tokenizers=True,
        instead="current",
    ),
    four_bit_platforms=frozenset({"h100", "cuda"}),
    attention=("flash_attention_2", "eager"),  # transformers 4.36 has no SDPA path for Mistral
    cuda="12.1",
    newest_capability=(9, 0),  # https://docs.nvidia.com/cuda/archive/12.1.0/
    fused_adamw_off_cuda=False,
    grows_allocator=False,
    padding_free=False,
    compiled_layers=False,
    liger_kernel=False,
    empty_cache_steps=False,  # transformers 4.45 and later
    partial_checkpointing_from=None,
    weighs_by_tokens=False,  # transformers 4.36 averages the means of micro-batches
    loss_in_tiles=False,
    rotary_in_layers=True,
    checkpoints_save_arguments=True,
    linear_casts_back=True,  # peft 0.7
    norm_keeps_squares=True,  # torch 2.1
    four_bit_keeps_input=True,  # bitsandbytes 0.41
    fused_repeats_keys=True,
    held_to="not measured on a GPU with this stack",
)

# The release wheel for torch 2.1, CUDA 12 and Python 3.11. Its address is the one its users name; neither it nor a
# checksum could be verified where this was written, so none is given: the build prints the one it finds.
FLASH_ATTN_WHEEL = (
    "https://github.com/Dao-AILab/flash-attention/releases/download/v2.3.3/"
    "flash_attn-2.3.3+cu122torch2.1cxx11abiFALSE-cp311-cp311-linux_x86_64.whl"
)


def load_model(folder: str, dtype: Any, options: Mapping[str, Any]) -> Any:
    """Load a causal language model, with the older name of its type."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, torch_dtype=dtype, **options)


def training_arguments(shared: dict[str, Any], _empty_cache_steps: int | None) -> Any:
    """Build transformers' own arguments: trl 0.7.4 has none."""
    from transformers import TrainingArguments

    renamed = {"evaluation_strategy" if name == "eval_strategy" else name: value for name, value in shared.items()}
    return TrainingArguments(**renamed)


def trainer_options(tokenizer: Any, max_seq_length: int) -> dict[str, Any]:
    """Return what trl 0.7.4 wants of a trainer, the name of a text column among it: the rows have none."""
    return {
        "tokenizer": tokenizer,
        "max_seq_length": max_seq_length,
        "dataset_text_field": "text",
    }


def dataset(order: Sequence[int], columns: Callable[[Sequence[int]], dict[str, list[list[int]]]]) -> Any:
    """Wrap rows in what trl 0.7.4 passes through untouched: a torch dataset of tokenised rows."""
    from torch.utils.data import Dataset

    class _Rows(Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return len(order)

        def __getitem__(self, index: int) -> dict[str, list[int]]:
            return {name: values[0] for name, values in columns([order[index]]).items()}

    return _Rows()


GENERATION = Generation(
    traits=TRAITS,
    known={"transformers": ((4, 36), (4, 37)), "torch": ((2,), (3,)), "trl": ((0, 7), (0, 8)), "peft": ((0,), (1,))},
    locks={"Linux": REFERENCE},
    usual_on=frozenset({"h100"}),
    image_build_bytes=15_000_000_000,
    flash_attn_wheel=FLASH_ATTN_WHEEL,
    load_model=load_model,
    training_arguments=training_arguments,
    trainer_options=trainer_options,
    dataset=dataset,
)
