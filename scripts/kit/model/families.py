"""The supported model families: what their configurations may say, and the defaults of what they leave out.

Source of the defaults: transformers' configuration classes, which the tests compare with these on every stack.
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
    defaults: Mapping[str, Any] = field(default_factory=dict)  # what its configuration class fills in
    query_biases: str = ""  # the key that gives queries, keys and values a bias; "always" where they have one
    has_head_norms: bool = False  # queries and keys are normalised head by head


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
# Not of this form: several feed-forward parts a block, of which each token meets a few.
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


# What decides what a model of these families computes, and what it may be. Nothing else of config.json is read: neither
# what only other programs know, nor what transformers would trip over in the middle of loading.
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
# Beyond any model there is; a configuration that asks for more is damaged, and would take all memory to read.
_MOST = {"num_hidden_layers": 1_000, "max_position_embeddings": 1 << 24}


def family_names() -> str:
    """List the families for a sentence: ``mistral, llama, …``."""
    return ", ".join(FAMILIES)


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is read of a ``config.json``, with what its family's class would fill in.

    Raises:
        ValueError: Its family is not known, it is a mixture of experts, or it says what no model of the family says.
    """
    kind = config.get("model_type")
    for key in _EXPERTS:
        if config.get(key):
            raise ValueError(f"{key} is {config[key]}: a mixture of experts, whose experts an adapter would not keep")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"model_type is {kind!r}; supported are {family_names()}")
    read = {key: value for key, value in config.items() if key in _READ}
    for key, value in read.items():
        may_be_null = value is None and key in _MAY_BE_NULL
        if not may_be_null and (not _READ[key](value) or (key in _MOST and value > _MOST[key])):
            raise ValueError(f"{key} is {value!r:.60}, which no model of these families has")
    layers = read.get("layer_types")
    if layers and len(layers) != read.get("num_hidden_layers"):
        raise ValueError(f"layer_types names {len(layers):,} layers, num_hidden_layers {read.get('num_hidden_layers')}")
    return {"model_type": kind, **FAMILIES[kind].defaults, **read}


def beyond_older_words(config: Mapping[str, Any]) -> str:
    """Say what of a completed configuration transformers 4.36 would pass over or refuse; empty for nothing."""
    scaling = rope_scaling_of(config)
    if scaling:
        kind = scaling.get("type", scaling.get("rope_type"))
        plain = set(scaling) - {"type", "rope_type"} == {"factor"} and kind in {"linear", "dynamic"}
        if config["model_type"] != "llama" or not plain:
            return f"positions scaled by {kind!r}"
    own = config.get("head_dim")
    if own and own * config["num_attention_heads"] != config["hidden_size"]:
        return f"heads of {own}, which are not hidden_size / num_attention_heads"
    return "biases in the feed-forward part" if config.get("mlp_bias") else ""


def rope_scaling_of(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how positions are scaled, in whichever words; None where they are not."""
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(scaling, dict):
        return None
    rest = {key: value for key, value in scaling.items() if key != "rope_theta"}
    return None if rest.get("type", rest.get("rope_type", "default")) == "default" else rest


def in_older_words(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write a completed configuration so that transformers 4.36 reads the same from it as transformers 5.

    transformers 5 puts the positions' base into ``rope_parameters``; 4.36 passes over that and takes its default,
    without a word.
    """
    older = {key: value for key, value in config.items() if key not in {"rope_parameters", "layer_types"}}
    parameters, scaling = config.get("rope_parameters"), rope_scaling_of(config)
    if parameters and "rope_theta" in parameters:
        older["rope_theta"] = parameters["rope_theta"]
    kind = scaling and scaling.get("type", scaling.get("rope_type"))
    older["rope_scaling"] = scaling and {"type": kind, "factor": scaling["factor"]}
    return older
