"""The supported model families: the allowed values of their configurations, and their defaults.

The defaults come from transformers' configuration classes, which the tests compare with these on every stack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Family:
    """One ``model_type``."""

    name: str
    defaults: Mapping[str, Any] = field(default_factory=dict)  # for keys missing from config.json
    query_biases: str = ""  # the key that gives queries, keys and values a bias; "always" if they have one
    has_head_norms: bool = False  # queries and keys are normalised per head


_COMMON = {"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 10_000.0}
FAMILIES = {
    "mistral": Family("Mistral", {**_COMMON, "num_key_value_heads": 8, "sliding_window": 4096}),
    "llama": Family("Llama", {**_COMMON, "attention_bias": False, "mlp_bias": False}, "attention_bias"),
    "qwen2": Family("Qwen 2", {**_COMMON, "num_key_value_heads": 32}, "always"),
    "qwen3": Family(
        "Qwen 3",
        {**_COMMON, "num_key_value_heads": 32, "head_dim": 128, "attention_bias": False},
        "attention_bias",
        has_head_norms=True,
    ),
}
# Keys of mixtures of experts: several MLPs per block, a few of them for each token.
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_LAYER_TYPES = {"full_attention", "sliding_attention"}


def _is_number(value: Any) -> bool:
    return type(value) in {int, float} and 0 < value < math.inf


def _is_scaling(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    kind = value.get("type", value.get("rope_type", "default"))
    rest = [part for key, part in value.items() if key not in {"type", "rope_type"}]
    return isinstance(kind, str) and all(_is_number(part) or isinstance(part, (bool, str, type(None))) for part in rest)


# The keys that decide what a model of these families computes, with their allowed values. No other key of config.json
# reaches transformers.
_READ: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(
        ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
         "num_key_value_heads", "head_dim", "max_position_embeddings", "sliding_window"),
        lambda value: type(value) is int and value > 0,
    ),
    **dict.fromkeys(
        ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window"),
        lambda value: isinstance(value, bool),
    ),
    **dict.fromkeys(("rope_theta", "rms_norm_eps"), _is_number),
    **dict.fromkeys(("rope_scaling", "rope_parameters"), _is_scaling),
    "attention_dropout": lambda value: type(value) in {int, float} and 0 <= value < 1,
    "max_window_layers": lambda value: type(value) is int and value >= 0,
    "layer_types": lambda value: isinstance(value, list) and all(kind in _LAYER_TYPES for kind in value),
    "hidden_act": lambda value: value == "silu",
}  # fmt: skip
_MAY_BE_NULL = frozenset(
    {"num_key_value_heads", "head_dim", "sliding_window", "rope_scaling", "rope_parameters", "layer_types"}
)
# Beyond any existing model; a larger value is damage, and would take all memory.
_MOST = {"num_hidden_layers": 1_000, "max_position_embeddings": 1 << 24}


def family_names() -> str:
    """List the families: ``mistral, llama, …``."""
    return ", ".join(FAMILIES)


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a ``config.json`` that are read, completed by the family's defaults.

    Raises:
        ValueError: The family is unknown, it is a mixture of experts, or a value is not allowed.
    """
    kind = config.get("model_type")
    for key in _EXPERTS:
        if config.get(key):
            raise ValueError(
                f"{key} is {config[key]}: mixtures of experts are not supported, as adapters keep no experts"
            )
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"model_type is {kind!r}; supported families are {family_names()}")
    read = {key: value for key, value in config.items() if key in _READ}
    for key, value in read.items():
        may_be_null = value is None and key in _MAY_BE_NULL
        if not may_be_null and (not _READ[key](value) or (key in _MOST and value > _MOST[key])):
            raise ValueError(f"{key} is {value!r:.60}, which no model of these families has")
    layers = read.get("layer_types")
    if layers and len(layers) != read.get("num_hidden_layers"):
        raise ValueError(f"layer_types lists {len(layers):,} layers, num_hidden_layers {read.get('num_hidden_layers')}")
    return {"model_type": kind, **FAMILIES[kind].defaults, **read}


def beyond_older_words(config: Mapping[str, Any]) -> str:
    """Say what of a completed configuration transformers 4.36 would ignore or reject; empty for nothing."""
    scaling = rope_scaling_of(config)
    if scaling:
        kind = scaling.get("type", scaling.get("rope_type"))
        plain = set(scaling) - {"type", "rope_type"} == {"factor"} and kind in {"linear", "dynamic"}
        if config["model_type"] != "llama" or not plain:
            return f"RoPE scaling of type {kind!r}"
    own = config.get("head_dim")
    if own and own * config["num_attention_heads"] != config["hidden_size"]:
        return f"a head_dim of {own}, which is not hidden_size / num_attention_heads"
    return "biases in the MLP" if config.get("mlp_bias") else ""


def rope_scaling_of(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the RoPE scaling, under either key; None without one."""
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(scaling, dict):
        return None
    rest = {key: value for key, value in scaling.items() if key != "rope_theta"}
    return None if rest.get("type", rest.get("rope_type", "default")) == "default" else rest


def in_older_words(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite a completed configuration so that transformers 4.36 reads the same from it as transformers 5.

    transformers 5 puts ``rope_theta`` into ``rope_parameters``; 4.36 silently ignores that and takes its default.
    """
    older = {key: value for key, value in config.items() if key not in {"rope_parameters", "layer_types"}}
    parameters, scaling = config.get("rope_parameters"), rope_scaling_of(config)
    if parameters and "rope_theta" in parameters:
        older["rope_theta"] = parameters["rope_theta"]
    kind = scaling and scaling.get("type", scaling.get("rope_type"))
    older["rope_scaling"] = scaling and {"type": kind, "factor": scaling["factor"]}
    return older
