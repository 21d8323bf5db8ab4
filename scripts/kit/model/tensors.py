"""The tensors of a model of a supported family; the tests compare them with transformers' own classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kit.model.families import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kit.model.shape import ModelShape


def tensors_of(config: Mapping[str, Any], shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in the weights of a completed configuration, by name."""
    family = FAMILIES[config["model_type"]]
    hidden, head = shape.hidden_size, shape.head_dim
    with_bias = {"q_proj", "k_proj", "v_proj"} if family.query_biases == "always" else set()
    if config.get("attention_bias") and family.query_biases == "attention_bias":
        with_bias |= {"q_proj", "k_proj", "v_proj", "o_proj"}
    if config.get("mlp_bias"):
        with_bias |= {"gate_proj", "up_proj", "down_proj"}
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocab_size, hidden)}
    for layer in range(shape.num_hidden_layers):
        block = f"model.layers.{layer}"
        for module, (inputs, outputs) in shape.linear_sizes.items():
            part = "mlp" if module in {"gate_proj", "up_proj", "down_proj"} else "self_attn"
            tensors[f"{block}.{part}.{module}.weight"] = (outputs, inputs)
            if module in with_bias:
                tensors[f"{block}.{part}.{module}.bias"] = (outputs,)
        if family.has_head_norms:
            tensors |= {f"{block}.self_attn.{norm}.weight": (head,) for norm in ("q_norm", "k_norm")}
        tensors |= {f"{block}.{norm}.weight": (hidden,) for norm in ("input_layernorm", "post_attention_layernorm")}
    tensors["model.norm.weight"] = (hidden,)
    if not shape.tie_word_embeddings:
        tensors["lm_head.weight"] = (shape.vocab_size, hidden)
    return tensors
