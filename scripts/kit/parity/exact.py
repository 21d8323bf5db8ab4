"""The canonical training in float64, from the formulas: Mistral, LoRA, the loss on the answers, clipping, AdamW.

Uses nothing of transformers, peft, trl, accelerate, bitsandbytes or the kit's own training: they are compared with
this. Imports torch, for its derivatives.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from kit.data.batch_order import FILLER
from kit.data.encoding import IGNORE_INDEX
from kit.parity.contract import TARGETS
from kit.parity.four_bit import nf4_and_back
from kit.parity.results import Numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kit.config.settings import Settings
    from kit.data.batch_order import BatchOrder
    from kit.data.encoding import EncodedRow
    from kit.parity.weights import Weights

_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # transformers' defaults
_CLIP_EPSILON = 1e-6  # torch.nn.utils.clip_grad_norm_ adds it to the norm


def exact_training(
    weights: Weights, shape: Mapping[str, Any], settings: Settings, plan: BatchOrder, *, four_bit: bool
) -> Numbers:
    """Train, and return the exact numbers; ``shape`` is the model's ``config.json``."""
    model = _Mistral(weights, shape, settings.lora.lora_alpha / settings.lora.r, four_bit=four_bit)
    optimizer = _AdamW(model.adapter, settings.training.weight_decay)
    losses, norms, modules = [], [], {}
    for update in range(plan.steps):
        order = plan.order[update * plan.batch_size : (update + 1) * plan.batch_size]
        rows = [plan.rows[index] for index in order if index != FILLER]
        answers = sum(row.trainable_tokens for row in rows)
        loss = sum(model.loss(row) for row in rows) / answers
        gradients = dict(zip(model.adapter, torch.autograd.grad(loss, list(model.adapter.values())), strict=True))
        norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))
        losses.append(float(loss.detach()))
        norms.append(norm)
        if update == 0:
            modules = module_norms(gradients)
        share = min(1.0, settings.training.max_grad_norm / (norm + _CLIP_EPSILON))
        rate = settings.training.learning_rate * _schedule(update, plan.steps, settings.training.warmup_ratio)
        optimizer.step({name: gradient * share for name, gradient in gradients.items()}, rate)
    return Numbers(tuple(losses), tuple(norms), modules)


def module_norms(gradients: Mapping[str, Any]) -> dict[str, float]:
    """Return the gradient's norm over all layers by kind of module, such as ``q_proj.lora_A``."""
    squares: dict[str, float] = {}
    for name, gradient in gradients.items():
        module, matrix = name.split(".")[-3:-1]
        kind = f"{module}.{matrix}"
        squares[kind] = squares.get(kind, 0.0) + float((gradient.detach().cpu().double() ** 2).sum())
    return {kind: math.sqrt(square) for kind, square in sorted(squares.items())}


def _schedule(update: int, updates: int, warmup_ratio: float) -> float:
    """Linear warm-up, then half a cosine."""
    warmup = math.ceil(warmup_ratio * updates)
    if update < warmup:
        return update / warmup
    return 0.5 * (1 + math.cos(math.pi * (update - warmup) / (updates - warmup)))


class _AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    def __init__(self, weights: Mapping[str, Any], decay: float) -> None:
        self.weights, self.decay, self.count = weights, decay, 0
        self.means = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self.squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def step(self, gradients: Mapping[str, Any], rate: float) -> None:
        """Update the weights in place."""
        self.count += 1
        with torch.no_grad():
            for name, gradient in gradients.items():
                mean, square = self.means[name], self.squares[name]
                mean.mul_(_BETAS[0]).add_(gradient, alpha=1 - _BETAS[0])
                square.mul_(_BETAS[1]).add_(gradient**2, alpha=1 - _BETAS[1])
                unbiased, spread = mean / (1 - _BETAS[0] ** self.count), square / (1 - _BETAS[1] ** self.count)
                weight = self.weights[name]
                weight.mul_(1 - rate * self.decay).sub_(rate * unbiased / (spread.sqrt() + _EPSILON))


class _Mistral:
    """One row at a time, without padding or cache, so nothing can go wrong in batching."""

    def __init__(self, weights: Weights, shape: Mapping[str, Any], scaling: float, *, four_bit: bool) -> None:
        self.shape, self.scaling = shape, scaling
        self.base: dict[str, Any] = {}
        self.adapter: dict[str, Any] = {}
        for name, weight in weights.items():
            if ".lora_" in name:
                self.adapter[name] = torch.tensor(weight, dtype=torch.float64, requires_grad=True)
            else:
                is_quantised = four_bit and name.split(".")[-2] in TARGETS
                self.base[name] = torch.tensor(nf4_and_back(weight) if is_quantised else weight, dtype=torch.float64)

    def loss(self, row: EncodedRow) -> Any:
        """Return the cross entropy summed over a row's answer tokens, in nats."""
        scores = self._logits(torch.tensor(list(row.input_ids)))[:-1].log_softmax(-1)
        labels = list(row.labels)[1:]
        return -sum(scores[place, token] for place, token in enumerate(labels) if token != IGNORE_INDEX)

    def _logits(self, ids: Any) -> Any:
        stream = self.base["model.embed_tokens.weight"][ids]
        for number in range(self.shape["num_hidden_layers"]):
            layer = f"model.layers.{number}"
            stream = stream + self._attention(f"{layer}.self_attn", self._norm(f"{layer}.input_layernorm", stream))
            stream = stream + self._feed(f"{layer}.mlp", self._norm(f"{layer}.post_attention_layernorm", stream))
        return self._norm("model.norm", stream) @ self.base["lm_head.weight"].T

    def _linear(self, name: str, inputs: Any) -> Any:
        low, high = self.adapter[f"{name}.lora_A.weight"], self.adapter[f"{name}.lora_B.weight"]
        return inputs @ self.base[f"{name}.weight"].T + self.scaling * (inputs @ low.T) @ high.T

    def _norm(self, name: str, inputs: Any) -> Any:
        spread = (inputs**2).mean(-1, keepdim=True) + self.shape["rms_norm_eps"]
        return self.base[f"{name}.weight"] * inputs / spread.sqrt()

    def _feed(self, name: str, inputs: Any) -> Any:
        gate = self._linear(f"{name}.gate_proj", inputs)
        return self._linear(f"{name}.down_proj", gate * gate.sigmoid() * self._linear(f"{name}.up_proj", inputs))

    def _attention(self, name: str, inputs: Any) -> Any:
        heads, shared = self.shape["num_attention_heads"], self.shape["num_key_value_heads"]
        length, size = len(inputs), self.shape["hidden_size"] // heads
        queries, keys, values = (
            self._linear(f"{name}.{which}_proj", inputs).view(length, -1, size).transpose(0, 1) for which in "qkv"
        )
        # Grouped-query attention: several query heads share one of keys and values.
        keys, values = (part.repeat_interleave(heads // shared, dim=0) for part in (self._turned(keys), values))
        scores = self._turned(queries) @ keys.transpose(1, 2) / math.sqrt(size)
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(future, -math.inf).softmax(-1) @ values
        return self._linear(f"{name}.o_proj", mixed.transpose(0, 1).reshape(length, -1))

    def _turned(self, vectors: Any) -> Any:
        """Apply rotary embedding to the pairs (i, i + half), as Llama and Mistral do."""
        half = vectors.shape[-1] // 2
        rates = self.shape["rope_theta"] ** -(torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(vectors.shape[1], dtype=torch.float64)[:, None] * rates
        left, right = vectors[..., :half], vectors[..., half:]
        return torch.cat(
            [left * angles.cos() - right * angles.sin(), right * angles.cos() + left * angles.sin()], dim=-1
        )
