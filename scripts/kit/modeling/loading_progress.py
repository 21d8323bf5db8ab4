"""Say that a large base is being loaded, how far it is, and how long it took: minutes of silence look like a hang.

transformers reports to a bar of its own making, weight by weight or file by file; that is shown in its place, on a
terminal as a bar and in a log as a line for each tenth. Imports transformers.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from kit.cli.console import duration, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FROM_BYTES = 1_000_000_000  # what is smaller is there in seconds
_EVERY_S = 5  # a log of ten lines in no time would be no help


@contextlib.contextmanager
def loading(name: str, size_bytes: int) -> Iterator[None]:
    """Show transformers loading a model in here.

    Args:
        name: The model's.
        size_bytes: Of its weights; a small model is loaded without a word.
    """
    if size_bytes < _FROM_BYTES:
        yield
        return
    say(f"loading {name} ({size_bytes / 1e9:.1f} GB) …", "dim")
    began = time.monotonic()
    bars: Any = type(transformers_logging.tqdm)
    its_own = bars.__call__
    bars.__call__ = lambda _self, items, *_args, **_kwargs: _shown(items, name)
    try:
        yield
    finally:
        bars.__call__ = its_own
    say(f"loaded in {duration(time.monotonic() - began)}", "dim")


def _shown(items: Iterable[Any], name: str) -> Iterable[Any]:
    if sys.stderr.isatty():
        return tqdm(
            items, desc=f"loading {name}", bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}", leave=False
        )
    return _in_lines(list(items))


def _in_lines(items: list[Any]) -> Iterator[Any]:
    began = said = time.monotonic()
    shown = 0
    for index, item in enumerate(items):
        tenth, now = 10 * index // len(items), time.monotonic()
        if tenth > shown and now - said >= _EVERY_S:
            shown, said = tenth, now
            say(f"loading: {10 * tenth} % in {duration(now - began)}", "dim")
        yield item
