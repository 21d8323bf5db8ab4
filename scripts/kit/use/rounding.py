"""How far two evaluations of one model may be apart by rounding alone. Imports torch.

Two programs, batches, thread counts or devices round a model's arithmetic differently. Each of its n matrices adds a
relative error of about u + v sqrt(k) to the signal: u = 2^-p for a type of p significant bits, v = 2^-24 for sums of k
products in float32. They are independent, so together they come to rho = sqrt(n) times that, as a random walk does: a
logit is off by e, of standard deviation rho s, where s is the spread of a token's logits. A token's loss is off by sum
p_j e_j - e_y, of variance (1 + sum p_j^2) (rho s)^2, at most 2 (rho s)^2; the difference between two evaluations has
twice that, and the mean over N answer tokens an N-th of it, so 2 rho s / sqrt(N) is its standard deviation. Four of
them are the bound: beyond it lies what happens once in 16,000 times. The loss itself is a float32, with a rounding of
its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.use.scores import RowLosses

_DEVIATIONS = 4
_FLOAT32 = 2.0**-24


def loss_rounding(model: Any, losses: RowLosses, settings: Settings) -> float:
    """Return how far the mean loss of another evaluation may be from this one, in nats."""
    widths = [
        module.in_features
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".lora_" not in name
    ]
    error = (_unit_roundoff(settings) + _FLOAT32 * math.sqrt(max(widths))) * math.sqrt(len(widths))
    deviation = 2 * error * losses.logit_spread / math.sqrt(sum(losses.tokens))
    return _DEVIATIONS * (deviation + _FLOAT32 * losses.mean)


def _unit_roundoff(settings: Settings) -> float:
    """Return u of the coarsest type that is computed in."""
    quantization = settings.quantization
    types = [settings.model.torch_dtype, *filter(None, [settings.mixed_precision])]
    types += [quantization.bnb_4bit_compute_dtype] * quantization.load_in_4bit
    return max(float(torch.finfo(getattr(torch, name)).eps) / 2 for name in types)
