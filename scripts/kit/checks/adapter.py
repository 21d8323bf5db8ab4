"""Rules on the adapter: settings that are legal, and seldom what was meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.findings import Finding, warning
from kit.model.files import DEMO_BASE
from kit.model.shape import shape_of

if TYPE_CHECKING:
    from kit.checks.context import CheckContext

_HIGHEST_SCALING = 4
_HIGHEST_DROPOUT = 0.2
# QLoRA (arXiv 2305.14314, appendix B) trains 7B and 13B with 2e-4, 33B and 65B with 1e-4.
_LEARNING_RATES = (1e-5, 1e-3)
_SMALL_MODEL_LEARNING_RATES = (1e-5, 1e-2)
_SMALL_MODEL_PARAMETERS = 500_000_000


def scaling(run: CheckContext) -> list[Finding]:
    """Warn where the adapter's output is scaled down, or scaled up a lot."""
    lora, where = run.settings.lora, run.where("lora.lora_alpha")
    ratio = lora.lora_alpha / lora.r
    if 1 <= ratio <= _HIGHEST_SCALING:
        return []
    effect = "shrinks" if ratio < 1 else "multiplies"
    message = (
        f"lora.lora_alpha / lora.r is {lora.lora_alpha}/{lora.r} = {ratio:g}, which {effect} the adapter's output; "
        f"1 to {_HIGHEST_SCALING} is usual"
    )
    return [warning("config.adapter.scaling", message, f"lora.lora_alpha={2 * lora.r}", where)]


def dropout(run: CheckContext) -> list[Finding]:
    """Warn of a dropout that keeps the adapter from learning."""
    value = run.settings.lora.lora_dropout
    if value <= _HIGHEST_DROPOUT:
        return []
    message = f"lora.lora_dropout is {value:g}; 0 to {_HIGHEST_DROPOUT:g} is usual"
    return [warning("config.adapter.dropout", message, "lora.lora_dropout=0.05", run.where("lora.lora_dropout"))]


def learning_rate(run: CheckContext) -> list[Finding]:
    """Warn of a learning rate outside the range in which adapters of this size are trained."""
    shape = shape_of(run.settings.model)
    # The kit's own demo base is known to be small even before it is made.
    is_small = run.settings.model.model_name_or_path == DEMO_BASE or (
        shape is not None and shape.linear_parameters < _SMALL_MODEL_PARAMETERS
    )
    low, high = _SMALL_MODEL_LEARNING_RATES if is_small else _LEARNING_RATES
    value = run.settings.training.learning_rate
    if low <= value <= high:
        return []
    message = f"training.learning_rate is {value:g}; {low:g} to {high:g} is usual for LoRA"
    fix = "training.learning_rate=2e-4"
    return [warning("config.adapter.learning_rate", message, fix, run.where("training.learning_rate"))]
