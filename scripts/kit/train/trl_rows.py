"""Rows as the installed trl takes them: tokenised and masked already, in the plan's order. Imports torch.

They stay packed: a row becomes lists when it is asked for, in every epoch anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset

from kit.data.batch_order import FILLER
from kit.data.encoding import IGNORE_INDEX
from kit.data.token_rows import NO_ROWS
from kit.stacks.stack import installed_stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.data.token_rows import TokenRows

_NUMBER = "row"


class _TorchRows(torch.utils.data.Dataset):  # type: ignore[misc]
    """What trl 0.7.4 passes through untouched: a torch dataset of tokenised rows."""

    def __init__(self, rows: TokenRows, order: Sequence[int]) -> None:
        self.rows, self.order = rows, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return {name: values[0] for name, values in _columns(self.rows, [self.order[index]]).items()}


class _Unpack:
    """What ``datasets`` calls on a batch of rows' numbers."""

    def __init__(self, rows: TokenRows) -> None:
        self.rows = rows

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[list[int]]]:
        return _columns(self.rows, batch[_NUMBER])

    def __reduce__(self) -> tuple[Any, ...]:
        # datasets pickles what it calls for a fingerprint, and the rows are large.
        return _Unpack, (NO_ROWS,)


def rows_for_trl(rows: TokenRows, order: Sequence[int]) -> Any:
    """Wrap rows for the installed trl; ``FILLER`` becomes a row of one token that carries no loss."""
    if installed_stack().name != "current":
        return _TorchRows(rows, order)
    # trl 1.16 takes nothing but a ``datasets.Dataset``: one of the rows' numbers.
    return Dataset.from_dict({_NUMBER: np.asarray(order, np.int32)}).with_transform(_Unpack(rows))


def _columns(rows: TokenRows, numbers: Sequence[int]) -> dict[str, list[list[int]]]:
    filler = rows.tokens_of(0)[0][:1].tolist(), [IGNORE_INDEX]
    pairs = [filler if at == FILLER else [each.tolist() for each in rows.tokens_of(at)] for at in numbers]
    return {"input_ids": [ids for ids, _ in pairs], "labels": [labels for _, labels in pairs]}
