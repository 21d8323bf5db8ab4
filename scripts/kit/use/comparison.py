"""Compare a merged model with base + adapter: the same rows through both, logit by logit. Imports torch.

That each value in the files is right is ``kit.use.merged_weights``' matter. This is about the folder as
transformers loads it: the same names, type, configuration and layers, so that it answers as base + adapter did.

What may differ. Merging rounds each adapted matrix, and a forward pass in 16 bits rounds after every layer: both come
to more the deeper the model is, and no formula knows how much of it a model's layers pass on. So it is measured: peft
merges the same model in memory (and one value in a thousand moves by its last bit), and its logits are compared with
those before. That floor has the same depth, width, type, kernels and rows. The folder's logits are base + adapter's
with noise of the same kind; the two measures are the same where they are rounded alike, and independent draws of one
spread where they are not. The ratio of two such mean squares of n independent parts follows F(n, n): it is over 4 once
in 10,000 times for n = 32, and there are more parts than that (tokens, and directions of the hidden state). So the
difference may be twice the floor and not more, or, where nothing was rounded at all, one rounding of a logit.

An adapter that was not added differs by as much as the adapter changes the base: the same measure between base and base
+ adapter, printed beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.data.encoding import EncodedRow

ROWS = 16
_TIMES_FLOOR = 2.0
TOKENS = 256  # of each row: 16 x 256 x 32,000 logits in float32 are 0.5 GB


@dataclass(frozen=True)
class Comparison:
    """How far the merged model is from base + adapter.

    Attributes:
        positions: How many tokens' logits.
        difference: Root mean square of the difference, relative to the logits'.
        floor: The same measure for peft's own merge of the model in memory.
        tolerance: The most it may be.
        adapter_effect: The same measure between base and base + adapter.
        same_first_choice: Share of positions at which both find the same token likeliest.
        loss_before: Mean loss of the rows' answers, base + adapter.
        loss_after: The same of the merged model.
    """

    rows: int
    positions: int
    difference: float
    floor: float
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
        """Whether the logits alone would have shown a merge without the adapter."""
        return self.adapter_effect > self.tolerance


@dataclass(frozen=True)
class AdapterLogits:
    """Measures of the model in memory before the merged one replaces it: see ``Comparison``."""

    floor: float
    adapter_effect: float


def tolerance(floor: float, dtype: str) -> float:
    """Return the allowed difference for the floor of peft's own merge: see the module's docstring."""
    return max(_TIMES_FLOOR * floor, float(torch.finfo(getattr(torch, dtype)).eps) / 2)


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
    before: Sequence[torch.Tensor],
    after: Sequence[torch.Tensor],
    rows: Sequence[EncodedRow],
    dtype: str,
    measures: AdapterLogits,
) -> Comparison:
    """Compare the logits of base + adapter and of the merged model on the same rows."""
    same = sum(int((one.argmax(-1) == other.argmax(-1)).sum()) for one, other in zip(before, after, strict=True))
    positions = sum(len(one) for one in before)
    return Comparison(
        rows=len(rows),
        positions=positions,
        difference=relative_difference(before, after),
        floor=measures.floor,
        tolerance=tolerance(measures.floor, dtype),
        adapter_effect=measures.adapter_effect,
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
