"""The sizes of a Llama-like model that decide its memory and time. Imports no machine-learning library."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kit.files.json_files import read_object
from kit.model.families import completed
from kit.model.files import ModelFileError, find

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kit.config.keys import ModelSettings


@dataclass(frozen=True)
class ModelShape:
    """The sizes in a ``config.json``, by its own names."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    tie_word_embeddings: bool = False
    sliding_window: int | None = None

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
        """Parameters of embedding and head, one matrix if tied."""
        return (1 if self.tie_word_embeddings else 2) * self.vocab_size * self.hidden_size

    @property
    def norm_parameters(self) -> int:
        """Parameters of the norms: two per block, and the final one."""
        return (2 * self.num_hidden_layers + 1) * self.hidden_size

    @property
    def parameters(self) -> int:
        """All parameters except biases and per-head norms. 7.242 B for Mistral-7B."""
        return self.linear_parameters + self.embedding_parameters + self.norm_parameters

    def lora_parameters(self, rank: int, modules: tuple[str, ...]) -> int:
        """Trainable parameters of an adapter: rank x (inputs + outputs) for each layer. 41.9 M for r=16 on all 7."""
        sizes = self.linear_sizes
        return self.num_hidden_layers * rank * sum(sum(sizes[module]) for module in modules)


MISTRAL_7B = ModelShape(32_000, 4_096, 14_336, 32, 32, 8, 128, 32_768)
_MISTRAL_7B_V01 = replace(MISTRAL_7B, sliding_window=4_096)
_MISTRAL_7B_V03 = ModelShape(32_768, 4_096, 14_336, 32, 32, 8, 128, 32_768)
# As in each model's config.json on the hub.
KNOWN_SHAPES = {
    "mistralai/Mistral-7B-v0.1": _MISTRAL_7B_V01,
    "mistralai/Mistral-7B-Instruct-v0.1": _MISTRAL_7B_V01,
    "mistralai/Mistral-7B-Instruct-v0.2": MISTRAL_7B,
    "mistralai/Mistral-7B-v0.3": _MISTRAL_7B_V03,
    "mistralai/Mistral-7B-Instruct-v0.3": _MISTRAL_7B_V03,
}


def shape_of(model: ModelSettings) -> ModelShape | None:
    """Return a model's shape, by its name or from its folder or the cache; None if it cannot be found."""
    if model.model_name_or_path in KNOWN_SHAPES:
        return KNOWN_SHAPES[model.model_name_or_path]
    try:
        return read_shape(find(model.model_name_or_path, "config.json", model.revision))
    except (OSError, ValueError, ModelFileError):
        return None


def read_shape(path: Path) -> ModelShape:
    """Read the ``config.json`` of a model of one of the known families.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not such a model's; the message says what is missing or wrong.
    """
    return shape_in(completed(read_object(path)))


def shape_in(data: Mapping[str, Any]) -> ModelShape:
    """Take the sizes from a completed configuration.

    Raises:
        ValueError: One is missing or wrong; the message names it.
    """
    heads = _size(data, "num_attention_heads")
    hidden = _size(data, "hidden_size")
    if hidden % heads and not data.get("head_dim"):
        raise ValueError(f"hidden_size {hidden:,} is not a multiple of num_attention_heads {heads:,}")
    keys = _size(data, "num_key_value_heads", heads)
    if heads % keys:
        raise ValueError(f"num_attention_heads {heads:,} is not a multiple of num_key_value_heads {keys:,}")
    has_window = data.get("use_sliding_window", data["model_type"] == "mistral")
    return ModelShape(
        vocab_size=_size(data, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_size(data, "intermediate_size"),
        num_hidden_layers=_size(data, "num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=keys,
        head_dim=_size(data, "head_dim", hidden // heads),
        max_position_embeddings=_size(data, "max_position_embeddings"),
        tie_word_embeddings=data["tie_word_embeddings"],
        sliding_window=data.get("sliding_window") if has_window else None,
    )


def _size(data: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = default if data.get(key) is None else data[key]
    if type(value) is not int or value <= 0:
        raise ValueError(f"{key} is {value!r}; it must be a whole number above 0")
    return value
