"""A base model of any shape with random weights, written as the real one is, so that the real loading code reads it.

Random and not zeros: matrix products of zeros run faster than those of real weights. Imports torch.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from kit.demo.tokenizer import BOS_ID, CHAT_TEMPLATE, EOS_ID, SPECIAL_TOKENS, byte_tokenizer
from kit.model.tensors import tensors_of

if TYPE_CHECKING:
    from pathlib import Path

    from kit.model.shape import ModelShape

_SPREAD = 0.02  # Mistral's initializer_range


def write_random_base(shape: ModelShape, folder: Path, *, dtype: torch.dtype, device: str) -> Path:
    """Write ``config.json``, one safetensors file a block, their index, and a tokenizer of single bytes.

    Args:
        shape: The model's sizes.
        folder: Where to; made where it is missing, and left alone where a base of this shape is already.
        dtype: Of the weights; Mistral-7B is published in bfloat16.
        device: Where the numbers are drawn: drawing 7 B on a CPU takes a minute.

    Returns:
        The folder.

    Raises:
        OSError: There is no room: 2 bytes a parameter in bfloat16.
    """
    config = _config(shape, dtype)
    complete = folder / "model.safetensors.index.json"  # written last
    if complete.exists() and json.loads((folder / "config.json").read_text(encoding="utf-8")) == config:
        return folder
    complete.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator(device=device).manual_seed(0)
    index: dict[str, str] = {}
    for number, block in enumerate(_blocks(shape, config)):
        tensors = {
            name: torch.ones(size, dtype=dtype)
            if len(size) == 1
            else torch.empty(size, dtype=dtype, device=device).normal_(0.0, _SPREAD, generator=generator).cpu()
            for name, size in block.items()
        }
        file = f"model-{number:05d}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, file)
    write_random_config(shape, folder, dtype=dtype)
    _write(complete, {"metadata": {}, "weight_map": index})
    return folder


def write_random_config(shape: ModelShape, folder: Path, *, dtype: torch.dtype) -> Path:
    """Write what such a base has besides its weights: its configuration and its tokenizer; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    _write(folder / "config.json", _config(shape, dtype))
    _write(folder / "tokenizer_config.json", _tokenizer_config())
    return folder


def _blocks(shape: ModelShape, config: dict[str, Any]) -> list[dict[str, tuple[int, ...]]]:
    """Return each file's tensors by name, with their sizes: one file a block, and one for the rest."""
    blocks: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, size in tensors_of(config, shape).items():
        layer = name.split(".")[2] if name.startswith("model.layers.") else ""
        blocks.setdefault(layer, {})[name] = size
    return list(blocks.values())


def _config(shape: ModelShape, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "torch_dtype": str(dtype).removeprefix("torch."),
        "hidden_act": "silu",
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        **vars(shape),
    }


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": SPECIAL_TOKENS[0],
        "bos_token": SPECIAL_TOKENS[1],
        "eos_token": SPECIAL_TOKENS[2],
        "chat_template": CHAT_TEMPLATE,
    }


def _write(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
