"""Check every value of a merged model against the base's and what peft itself would add. Imports torch.

The merged files are read back and compared with the base's files and with the delta that peft computes for each adapted
matrix: another way than ``kit.use.merging`` takes to the same numbers. A matrix is right where each of its values
is W + delta, rounded once to the type that was written. Both ways sum in float32, and may differ there: a sum of r
products is off by at most (r + 1) u |scaling| sum |b a| <= (r + 1) u |scaling| |b_i| |a_j| (u = 2^-24; b_i and a_j are
the rows of B and the columns of A), on either side, and each addition and product around it by another u of its result.
So a value has to lie between the roundings of the two ends of that interval, which for 16 bits is thousands of times
narrower than a rounding step. Rounding is monotone, so this holds at subnormal numbers and at the ends of a binade too.
Everything else has to be the base's value, rounded once.

No noise of a forward pass is in this, so it holds at any depth and width, and it sees from both sides: an adapter that
was forgotten, transposed, added to another matrix, or scaled by too little or too much is out of the interval wherever
it would have changed the rounded value.

What a person reads is the share of the adapter's change that is in the merged weights, <W' - W, delta> / <delta,
delta>, W rounded too: about 1, and 0 for an adapter that was forgotten. It is no verdict, as rounding itself moves it
where the adapter is small: a W in 16 bits lies on the grid it is rounded to, so that a change of less than half a step
is lost whole. Losing most of it is reported; at 0 the merged model is the base, and right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from safetensors import safe_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kit.use.merging import BaseWeights

_AT_ONCE = 2**20  # elements: some ten tensors of them in float32 are in memory
_U = 2.0**-24


@dataclass(frozen=True)
class WeightCheck:
    """What was found in the merged files.

    Attributes:
        matrices: How many are adapted.
        others: How many tensors are not.
        kept: Share of the adapter's change that rounding left in the merged weights.
        wrong: What is not right, a sentence each.
    """

    matrices: int
    others: int
    kept: float
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class AdaptedMatrices:
    """What peft says a model's adapter does, by the names of the base's tensors.

    Attributes:
        replaced: Tensors that were trained whole.
    """

    layers: dict[str, Any]
    replaced: dict[str, torch.Tensor]


@dataclass
class _Matrix:
    """Sums over one adapted matrix."""

    values: int = 0
    wrong: int = 0
    change: float = 0.0
    size: float = 0.0


def adapted_by_peft(model: Any, adapter: str = "default") -> AdaptedMatrices:
    """Find the layers of a model with an adapter on it."""
    layers: dict[str, Any] = {}
    replaced: dict[str, torch.Tensor] = {}
    for path, module in model.named_modules():
        name = path.removeprefix("base_model.model.")
        if isinstance(module, LoraLayer) and adapter in module.lora_A:
            layers[f"{name}.weight"] = module
        elif isinstance(module, ModulesToSaveWrapper):
            saved = module.modules_to_save[adapter].state_dict()
            replaced |= {f"{name}.{part}": tensor for part, tensor in saved.items()}
    return AdaptedMatrices(layers, replaced)


def check_weights(
    base: BaseWeights,
    merged: BaseWeights,
    adapted: AdaptedMatrices,
    dtype: str,
    done: Callable[[int], object] = lambda _count: None,
) -> WeightCheck:
    """Compare merged files with their base's and with peft's float32 deltas, some rows in memory at a time.

    ``done`` gets each tensor's number of elements.
    """
    written = getattr(torch, dtype)
    wrong = [f"{name} is missing" for name in sorted(base.shapes.keys() - merged.shapes.keys())]
    wrong += [f"{name} is not in the base" for name in sorted(merged.shapes.keys() - base.shapes.keys())]
    strange = sorted((adapted.layers.keys() | adapted.replaced.keys()) - base.shapes.keys())
    wrong += [f"{name} is adapted, but not in the base" for name in strange]
    change = size = 0.0
    places = _places(merged)
    for name, tensor, shape in _tensors(base):
        if name not in places:
            continue
        if merged.shapes[name] != shape:
            wrong.append(f"{name} has shape {merged.shapes[name]} instead of {shape}")
            continue
        with safe_open(places[name], framework="pt") as file:
            there = file.get_slice(name)
            if name in adapted.layers:
                found = _compare(tensor, there, shape, adapted.layers[name], written)
                change, size = change + found.change, size + found.size
                if found.wrong:
                    share = found.change / found.size if found.size else 0.0
                    wrong.append(
                        f"{name}: {found.wrong:,} of {found.values:,} values differ from base + adapter; {share:.2f} "
                        "of the adapter's change is kept"
                    )
            elif not _is_rounded(adapted.replaced.get(name), tensor, there, shape, written):
                wrong.append(f"{name} differs from the base's")
        done(torch.Size(shape).numel())
    others = len(base.shapes) - len(adapted.layers)
    return WeightCheck(len(adapted.layers), others, change / size if size else 1.0, tuple(wrong))


def _places(weights: BaseWeights) -> dict[str, Path]:
    places: dict[str, Path] = {}
    for path in weights.shards.values():
        with safe_open(path, framework="pt") as file:
            places |= dict.fromkeys(file.keys(), path)
    return places


def _tensors(weights: BaseWeights) -> Iterator[tuple[str, Any, tuple[int, ...]]]:
    """Yield each tensor as a lazy slice."""
    for path in weights.shards.values():
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                yield name, file.get_slice(name), weights.shapes[name]


def _rows(shape: tuple[int, ...]) -> Iterator[slice]:
    if not shape:
        yield slice(None)
        return
    each = max(1, _AT_ONCE * shape[0] // max(1, torch.Size(shape).numel()))
    yield from (slice(begin, begin + each) for begin in range(0, shape[0], each))


def _compare(base: Any, merged: Any, shape: tuple[int, ...], layer: Any, dtype: torch.dtype) -> _Matrix:
    with torch.no_grad():
        delta = layer.get_delta_weight("default").detach().float().cpu()
        slack = _slack_of(layer)
    sums = _Matrix()
    if tuple(delta.shape) != shape:
        return _Matrix(values=torch.Size(shape).numel(), wrong=torch.Size(shape).numel())
    for rows in _rows(shape):
        here, there, added = base[rows], merged[rows], delta[rows]
        before, after = here.float(), there.float()
        wanted = before + added
        sums.values += after.numel()
        if not torch.equal(wanted.to(dtype), there):
            apart = slack(rows) + 4 * _U * wanted.abs()
            low, high = ((wanted + sign * apart).to(dtype).float() for sign in (-1, 1))
            # Not "outside": what is no number is inside of nothing.
            sums.wrong += int((~((low <= after) & (after <= high))).sum())
        rounded = before if here.dtype == dtype else here.to(dtype).float()
        sums.change += float(torch.dot((after - rounded).flatten(), added.flatten()))
        sums.size += float(torch.dot(added.flatten(), added.flatten()))
    return sums


def _slack_of(layer: Any) -> Callable[[slice], torch.Tensor]:
    """Return how far two float32 sums of a layer's delta may be apart, for some rows of it."""
    down, up = (getattr(layer, half)["default"].weight.detach().float().cpu() for half in ("lora_A", "lora_B"))
    factor = 2 * (down.shape[0] + 2) * _U * abs(layer.scaling["default"])
    outputs, inputs = up.norm(dim=1) * factor, down.norm(dim=0)
    if getattr(layer, "fan_in_fan_out", False):
        outputs, inputs = inputs, outputs
    return lambda rows: outputs[rows, None] * inputs[None]


def _is_rounded(replaced: Any, base: Any, merged: Any, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    for rows in _rows(shape):
        wanted = (base if replaced is None else replaced.detach().cpu())[rows if shape else ...]
        wanted = wanted.to(dtype) if wanted.is_floating_point() else wanted
        if not torch.equal(wanted, merged[rows if shape else ...]):
            return False
    return True
