"""Compare a merged model with base + adapter: the same rows through both, logit by logit. Imports torch.

The tolerance. Merging rounds every adapted matrix once more to the type that is written: a relative error of at most
u = 2^-p for a type with p significant bits (bfloat16: p = 8). Products are summed in float32 (p = 24), in another order
once merged: for sums of k products about v * sqrt(k), v = 2^-24. What each of n matrices adds to the signal is thus a
relative error of about u + v * sqrt(k) that does not depend on the others', so together they come to sqrt(n) times
that, as a random walk does. The root mean square of the logits' difference, relative to that of the logits, may be so
much and not more. An adapter that was not added differs by as much as the adapter changes the base: the same measure
between base and base + adapter, printed beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kit.data.encoding import EncodedRow

ROWS = 16
TOKENS = 256  # of each row: 16 x 256 x 32,000 logits in float32 are 0.5 GB


@dataclass(frozen=True)
class Comparison:
    """How far the merged model is from base + adapter.

    Attributes:
        rows: How many rows were compared.
        positions: How many tokens' logits.
        difference: Root mean square of the difference, relative to the logits'.
        tolerance: The most it may be.
        adapter_effect: The same measure between base and base + adapter.
        same_first_choice: Share of positions at which both find the same token likeliest.
        loss_before: Mean loss of the rows' answers, base + adapter.
        loss_after: The same of the merged model.
    """

    rows: int
    positions: int
    difference: float
    tolerance: float
    adapter_effect: float
    same_first_choice: float
    loss_before: float
    loss_after: float

    @property
    def is_close(self) -> bool:
        """Whether the merged model is what was to be written."""
        return self.difference <= self.tolerance

    @property
    def can_tell(self) -> bool:
        """Whether a merge without the adapter would have been noticed."""
        return self.adapter_effect > 2 * self.tolerance


def tolerance(dtype: str, shapes: Iterable[tuple[int, ...]]) -> float:
    """Return ``(u + v * sqrt(k)) * sqrt(n)``: see the module's beginning.

    Args:
        dtype: Type of the weights.
        shapes: Of all the model's tensors; the matrices among them count.
    """
    widths = [shape[-1] for shape in shapes if len(shape) > 1]
    rounding, summing = (torch.finfo(kind).eps / 2 for kind in (getattr(torch, dtype), torch.float32))
    return float((rounding + summing * math.sqrt(max(widths))) * math.sqrt(len(widths)))


def logits_of(model: Any, rows: Sequence[EncodedRow]) -> list[torch.Tensor]:
    """Return each row's logits, (tokens, vocabulary), in float32 on the CPU."""
    model.eval()
    found = []
    for row in rows:
        ids = torch.tensor([row.input_ids[:TOKENS]], device=model.device)
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
        found.append(logits.float().cpu())
    return found


def relative_difference(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> float:
    """Root mean square of the difference of two models' logits, relative to the first's.

    Each position's logits count from their own mean: what is added to all of them changes no probability.
    """
    squares, size = 0.0, 0.0
    for one, other in zip(some, others, strict=True):
        centred = (one - one.mean(dim=-1, keepdim=True)).double()
        squares += float((centred - (other - other.mean(dim=-1, keepdim=True)).double()).square().sum())
        size += float(centred.square().sum())
    return math.sqrt(squares / size) if size else math.inf


def compare(
    base: Sequence[torch.Tensor],
    before: Sequence[torch.Tensor],
    after: Sequence[torch.Tensor],
    rows: Sequence[EncodedRow],
    allowed: float,
) -> Comparison:
    """Compare logits of the base, of base + adapter and of the merged model on the same rows."""
    same = sum(int((one.argmax(-1) == other.argmax(-1)).sum()) for one, other in zip(before, after, strict=True))
    positions = sum(len(one) for one in before)
    return Comparison(
        rows=len(rows),
        positions=positions,
        difference=relative_difference(before, after),
        tolerance=allowed,
        adapter_effect=relative_difference(before, base),
        same_first_choice=same / positions,
        loss_before=_loss(before, rows),
        loss_after=_loss(after, rows),
    )


def _loss(logits: Sequence[torch.Tensor], rows: Sequence[EncodedRow]) -> float:
    total, tokens = 0.0, 0
    for row_logits, row in zip(logits, rows, strict=True):
        labels = torch.tensor(row.labels[1:TOKENS])
        is_answer = labels >= 0
        total += float(
            torch.nn.functional.cross_entropy(row_logits[:-1][is_answer], labels[is_answer], reduction="sum")
        )
        tokens += int(is_answer.sum())
    return total / tokens if tokens else math.nan
