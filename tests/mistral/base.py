"""A base with random weights in the shape of Mistral-7B-Instruct-v0.2's repository: files, keys, shards, bystanders."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_SHARDS = 3
CONFIG: dict[str, Any] = {
    "architectures": ["MistralForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 224,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.36.0",
    "use_cache": True,
    "vocab_size": 32000,
}
GENERATION = {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "transformers_version": "4.36.0"}


def write_base(folder: Path, tokenizer: Path) -> Path:
    """Write it around a tokenizer's folder."""
    import torch
    from safetensors.torch import save_file
    from transformers import MistralConfig, MistralForCausalLM

    shutil.copytree(tokenizer, folder)
    _dump(folder / "config.json", CONFIG)
    _dump(folder / "generation_config.json", GENERATION)
    torch.manual_seed(0)
    sizes = {key: value for key, value in CONFIG.items() if key not in {"torch_dtype", "transformers_version"}}
    weights = MistralForCausalLM(MistralConfig(**sizes)).to(torch.bfloat16).state_dict()
    files: dict[str, dict[str, Any]] = {}
    for number, (name, tensor) in enumerate(weights.items()):
        shard = 1 + number * _SHARDS // len(weights)
        files.setdefault(f"model-{shard:05d}-of-{_SHARDS:05d}.safetensors", {})[name] = tensor.contiguous()
    for name, tensors in files.items():
        save_file(tensors, folder / name, metadata={"format": "pt"})
    where = {tensor: name for name, tensors in files.items() for tensor in tensors}
    total = sum(tensor.nbytes for tensor in weights.values())
    _dump(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})
    # What a bare `hf download` brings along: the weights again, for other programs. Nobody may open these.
    pickled = {
        tensor: name.replace("model", "pytorch_model").replace("safetensors", "bin") for tensor, name in where.items()
    }
    _dump(folder / "pytorch_model.bin.index.json", {"metadata": {"total_size": total}, "weight_map": pickled})
    for name in {*pickled.values(), "consolidated.safetensors"}:
        (folder / name).write_bytes(b"not to be opened")
    _dump(folder / "params.json", {"dim": 64})
    (folder / ".gitattributes").write_text("*.bin filter=lfs\n", encoding="utf-8")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    return folder


def _dump(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
