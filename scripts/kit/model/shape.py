"""The sizes of a Llama-like model that decide its memory and time; imports no machine-learning library."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a ``config.json`` that matter here, in its own names."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int

    @property
    def linear_sizes(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of the seven linear layers of one block, by module name."""
        hidden, inner = self.hidden_size, self.intermediate_size
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        return {
            "q_proj": (hidden, queries),
            "k_proj": (hidden, keys),
            "v_proj": (hidden, keys),
            "o_proj": (queries, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    @property
    def linear_parameters(self) -> int:
        """Parameters of all blocks' linear layers: what 4-bit loading quantises. 6.979 B for Mistral-7B."""
        return self.num_hidden_layers * sum(inputs * outputs for inputs, outputs in self.linear_sizes.values())

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the embedding and the head together; norms are too small to count."""
        return 2 * self.vocab_size * self.hidden_size

    def lora_parameters(self, rank: int, modules: tuple[str, ...]) -> int:
        """Trainable parameters of an adapter: rank x (inputs + outputs) for each layer. 41.9 M for r=16 on all 7."""
        sizes = self.linear_sizes
        return self.num_hidden_layers * rank * sum(sum(sizes[module]) for module in modules)


MISTRAL_7B = ModelShape(32_000, 4_096, 14_336, 32, 32, 8, 128, 32_768)
_MISTRAL_7B_V03 = ModelShape(32_768, 4_096, 14_336, 32, 32, 8, 128, 32_768)
# As in each model's config.json on the hub.
KNOWN_SHAPES = {
    "mistralai/Mistral-7B-v0.1": MISTRAL_7B,
    "mistralai/Mistral-7B-Instruct-v0.1": MISTRAL_7B,
    "mistralai/Mistral-7B-Instruct-v0.2": MISTRAL_7B,
    "mistralai/Mistral-7B-v0.3": _MISTRAL_7B_V03,
    "mistralai/Mistral-7B-Instruct-v0.3": _MISTRAL_7B_V03,
}


def shape_of(model_name_or_path: str) -> ModelShape | None:
    """Return a model's shape: known by its name, or read from its directory; None where neither tells it."""
    if model_name_or_path in KNOWN_SHAPES:
        return KNOWN_SHAPES[model_name_or_path]
    try:
        data = json.loads((Path(model_name_or_path).expanduser() / "config.json").read_text(encoding="utf-8"))
        heads = data["num_attention_heads"]
        shape = ModelShape(
            vocab_size=data["vocab_size"],
            hidden_size=data["hidden_size"],
            intermediate_size=data["intermediate_size"],
            num_hidden_layers=data["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=data.get("num_key_value_heads") or heads,
            head_dim=data.get("head_dim") or data["hidden_size"] // heads,
            max_position_embeddings=data["max_position_embeddings"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return None
    sizes = vars(shape).values()
    return shape if all(type(size) is int and size > 0 for size in sizes) else None
