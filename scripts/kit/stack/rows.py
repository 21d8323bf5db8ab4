"""Rows as the installed trl takes them: tokenised and masked already, in the plan's order. Imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset

from kit.data.encoding import IGNORE_INDEX
from kit.run.plan import FILLER
from kit.stack import installed_stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.data.encoding import EncodedRow


class _TorchRows(torch.utils.data.Dataset):  # type: ignore[misc]
    """What trl 0.7.4 passes through untouched: a torch dataset of tokenised rows."""

    def __init__(self, columns: dict[str, list[list[int]]], order: Sequence[int]) -> None:
        self.columns, self.order = columns, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return {name: values[self.order[index]] for name, values in self.columns.items()}


def rows_for_trl(rows: Sequence[EncodedRow], order: Sequence[int]) -> Any:
    """Wrap rows for the installed trl; the row behind the last one is the filler, which carries no loss."""
    columns = {
        "input_ids": [*(row.input_ids for row in rows), rows[0].input_ids[:1]],
        "labels": [*(row.labels for row in rows), [IGNORE_INDEX]],
    }
    indices = [len(rows) if index == FILLER else index for index in order]
    return (
        Dataset.from_dict(columns).select(indices)
        if installed_stack().name == "current"
        else _TorchRows(columns, indices)
    )
