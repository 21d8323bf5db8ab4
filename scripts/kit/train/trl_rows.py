"""Rows as the installed trl takes them: tokenised and masked already, in the plan's order.

They stay packed: a row becomes lists each time it is asked for.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from kit.data.batch_order import FILLER
from kit.data.encoding import IGNORE_INDEX
from kit.stacks.stack import installed_stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.data.token_rows import TokenRows


def rows_for_trl(rows: TokenRows, order: Sequence[int]) -> Any:
    """Wrap rows for the installed trl; ``FILLER`` becomes a row of one token that carries no loss."""
    return installed_stack().generation.dataset(order, functools.partial(_columns, rows))


def _columns(rows: TokenRows, numbers: Sequence[int]) -> dict[str, list[list[int]]]:
    filler = rows.tokens_of(0)[0][:1].tolist(), [IGNORE_INDEX]
    pairs = [filler if at == FILLER else [each.tolist() for each in rows.tokens_of(at)] for at in numbers]
    return {"input_ids": [ids for ids, _ in pairs], "labels": [labels for _, labels in pairs]}
