"""Check a merged model before it is kept: its files value by value, then its answers. Imports torch.

One model is in memory at a time: base + adapter, which peft then merges where it lies, and the merged folder after it.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from kit.cli.console import say
from kit.modeling.model import load_base_model
from kit.use.comparison import AdapterLogits, Comparison, compare, logits_of, relative_difference
from kit.use.loading import load
from kit.use.merged_weights import WeightCheck, adapted_by_peft, check_weights
from kit.use.merging import find_base

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from kit.data.encoding import EncodedRow
    from kit.use.loading import LoadChoice, Loaded
    from kit.use.merging import BaseWeights

_SHOWN = 5  # of what is wrong
_MOSTLY = 0.9
_ONE_IN = 1009


@dataclass(frozen=True)
class Checked:
    """Findings about a merged model; wrong weights skip the comparison of logits."""

    weights: WeightCheck
    comparison: Comparison | None

    @property
    def is_right(self) -> bool:
        """Whether weights and logits are right."""
        return not self.weights.wrong and self.comparison is not None and self.comparison.is_close


def check_merged(
    choice: LoadChoice, base: BaseWeights, merged: Path, dtype: str, rows: Sequence[EncodedRow]
) -> Checked:
    """Compare the merged folder with base + adapter: weights, then logits."""
    # In the type that people will use it in, but for float16 on a CPU, which the older torch cannot multiply.
    computed = "float32" if (dtype, choice.platform) == ("float16", "cpu") else dtype
    as_written = choice.settings.with_changes(
        {"model.torch_dtype": computed, "training.bf16": False, "training.fp16": False}
    )
    say(f"checking every weight, and the logits of {len(rows)} rows …", "dim")
    loaded = load(replace(choice, settings=as_written))
    weights = _check_weights(loaded.model, base, merged, dtype)
    if weights.wrong:
        return Checked(weights, None)
    before, measures = _measure(loaded, rows, dtype)
    del loaded  # two 7B models would not fit into a Mac
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    there = as_written.with_changes({"model.model_name_or_path": str(merged), "model.revision": None})
    after = logits_of(load_base_model(there, choice.platform), rows)
    return Checked(weights, compare(before, after, rows, computed, measures))


def _check_weights(model: Any, base: BaseWeights, merged: Path, dtype: str) -> WeightCheck:
    there = find_base(str(merged), None, download=False)
    total = sum(torch.Size(shape).numel() for shape in base.shapes.values())
    with tqdm(total=total, unit_scale=True, desc="weights", leave=False, disable=not sys.stderr.isatty()) as bar:
        return check_weights(base, there, adapted_by_peft(model), dtype, bar.update)


def _measure(loaded: Loaded, rows: Sequence[EncodedRow], dtype: str) -> tuple[list[torch.Tensor], AdapterLogits]:
    """Return the logits of base + adapter, and what the adapter and peft's own merge change of them."""
    with loaded.active(adapter=True) as model:
        before = logits_of(model, rows)
    with loaded.active(adapter=False) as model:
        effect = relative_difference(before, logits_of(model, rows))
    with loaded.active(adapter=True) as model:
        model.merge_adapter()
        for weight in model.parameters():
            _round(weight.data, getattr(torch, dtype))
        floor = relative_difference(before, logits_of(model, rows))
    return before, AdapterLogits(floor, effect)


def _round(weight: torch.Tensor, dtype: torch.dtype) -> None:
    """Round a weight in place to the type that is written, and move one value in a thousand by the last bit of its own.

    Where rounding swallows a small adapter whole, nothing would differ in memory, while in the files single values may;
    and a forward pass in 16 bits takes the least change of a weight to the size of its own rounding.
    """
    weight.copy_(weight.to(dtype))
    whole = {2: torch.int16, 4: torch.int32}.get(weight.dtype.itemsize)
    if weight.is_floating_point() and weight.is_contiguous() and whole:
        weight.view(whole).view(-1)[::_ONE_IN] += 1


def say_checked(checked: Checked, choice: LoadChoice, dtype: str) -> None:
    """Print the figures on stdout, doubts and errors on stderr."""
    weights, found = checked.weights, checked.comparison
    for sentence in weights.wrong[:_SHOWN]:
        say(sentence, "red")
    if len(weights.wrong) > _SHOWN:
        say(f"and {len(weights.wrong) - _SHOWN:,} more", "red")
    if found is None:
        return
    print(describe_weights(weights, dtype))
    print(describe_logits(found))
    recorded = choice.run.receipt.get("eval_loss")
    ended = f"; the run ended at {recorded:.4f} on all rows" if isinstance(recorded, float) else ""
    print(
        f"loss on the answers of {found.rows} rows: base + adapter {found.loss_before:.4f}, "
        f"merged {found.loss_after:.4f}{ended}"
    )
    if weights.kept < _MOSTLY:
        say(
            f"note: rounding to {dtype} keeps only {part(weights.kept)} of this small adapter's change; "
            "--dtype float32 keeps it",
            "yellow",
        )
    if not found.can_tell:
        say("note: the adapter changes the logits too little to prove the merge by them", "yellow")


def describe_weights(found: WeightCheck, dtype: str) -> str:
    """Say in one line what the check of the weights found."""
    return (
        f"weights: {found.matrices:,} matrices equal the base's plus peft's update, {found.others:,} other tensors "
        f"equal the base's, each value rounded once to {dtype}; {part(found.kept)} of the adapter's change is kept"
    )


def describe_logits(found: Comparison) -> str:
    """Say in one line what the comparison of the logits found."""
    return (
        f"logits of {found.positions:,} tokens: the merged model differs by {part(found.difference)} of their size "
        f"(peft's in-memory merge by {part(found.floor)}; up to {part(found.tolerance)} is rounding), the base "
        f"without the adapter by {part(found.adapter_effect)}; the most likely token is the same at "
        f"{found.same_first_choice:.2%}"
    )


def part(value: float) -> str:
    """Write a share."""
    return f"{value:.2%}" if value >= 1e-4 or not value else f"{value:.0e}"  # noqa: PLR2004 - below it, digits are 0
