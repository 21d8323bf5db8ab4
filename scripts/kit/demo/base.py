"""Pre-train the demo's base model, a small Mistral. Imports torch.

Deterministic: the same seed on the same machine and stack gives the same weights.
"""

from __future__ import annotations

import json
import random
import sys
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import MistralConfig, MistralForCausalLM

from kit.data.encoding import IGNORE_INDEX
from kit.demo.task import plain_line
from kit.demo.tokenizer import BOS_ID, EOS_ID, byte_tokenizer, save_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tokenizers import Tokenizer

# By transformers 4's names, which both stacks read.
SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-05,
    "sliding_window": None,
    "tie_word_embeddings": False,
}


def new_model(vocabulary_size: int, seed: int, shape: Mapping[str, Any] = SHAPE) -> MistralForCausalLM:
    """Initialise the small Mistral from a seed."""
    torch.manual_seed(seed)
    return MistralForCausalLM(
        MistralConfig(vocab_size=vocabulary_size, bos_token_id=BOS_ID, eos_token_id=EOS_ID, **shape)
    )


def save_base(model: MistralForCausalLM, tokenizer: Tokenizer, folder: Path, shape: Mapping[str, Any] = SHAPE) -> None:
    """Write model and tokenizer in transformers 4's layout, which both stacks load."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    save_tokenizer(tokenizer, folder, model_max_length=shape["max_position_embeddings"])
    files = {
        "config.json": {
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "vocab_size": tokenizer.get_vocab_size(),
            "bos_token_id": BOS_ID,
            "eos_token_id": EOS_ID,
            "hidden_act": "silu",
            "torch_dtype": "float32",
            **shape,
        },
        "generation_config.json": {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def pretrain(folder: Path, *, steps: int, batch_size: int = 64, learning_rate: float = 3e-3, seed: int = 0) -> float:
    """Pre-train the small Mistral on the plain form of the demo's tasks, save it, return the last loss in nats."""
    tokenizer = byte_tokenizer()
    model = new_model(tokenizer.get_vocab_size(), seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=learning_rate, total_steps=steps)
    source = random.Random(seed)  # noqa: S311 - training lines, not a secret
    colon = tokenizer.token_to_id(":")
    loss = float("nan")
    for _ in tqdm(range(steps), desc="pre-training the demo's base", unit="step", disable=not sys.stderr.isatty()):
        lines = [tokenizer.encode(plain_line(source)).ids for _ in range(batch_size)]
        longest = max(map(len, lines)) + 2
        ids = torch.full((batch_size, longest), EOS_ID)
        labels = torch.full((batch_size, longest), IGNORE_INDEX)
        mask = torch.zeros_like(ids)
        for row, line in enumerate(lines):
            tokens = torch.tensor([BOS_ID, *line, EOS_ID])
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
            # The word is random: only the answer can be learnt.
            answer = tokens.tolist().index(colon) + 1
            labels[row, answer : len(tokens)] = tokens[answer:]
        step_loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        step_loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        loss = float(step_loss.detach())
    save_base(model, tokenizer, folder)
    return loss
