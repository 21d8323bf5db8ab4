"""The rows a plan is made for: counted where they can be read, taken to be full length where they cannot."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from kit.data.conversations import read_lines
from kit.files.regular_files import open_regular
from kit.machine.platforms import EXAMPLES
from kit.model.files import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.config.settings import Settings
    from kit.data.token_rows import TokenRows
    from kit.plan.workload import Workload


def workloads_for(
    settings: Settings, rows: TokenRows | int | None, held_out: TokenRows | None = None
) -> tuple[Callable[[Settings], Workload], str]:
    """Return the function that counts a configuration's micro-batches, and a description of the rows.

    ``rows`` are encoded, a number of full length, or None where they could not be read. Those
    ``held_out`` for evaluation take memory too.
    """
    # Imported here: what only checks a configuration does not need numpy.
    from kit.plan.workload import full_length

    if isinstance(rows, int):
        return functools.partial(full_length, rows=rows), f"{rows:,} rows, each assumed full length"
    if rows:
        return _remembered(rows, held_out), f"{len(rows):,} rows of {settings.data.train_file}"
    path = Path(settings.data.train_file).expanduser()
    lines = _count_rows(path)
    if lines:
        what = f"{lines:,} lines of {path}, not tokenised here: each assumed full length"
        return functools.partial(full_length, rows=lines), what
    what = f"{EXAMPLES:,} rows, each assumed full length: {path} is missing or unreadable"
    return functools.partial(full_length, rows=EXAMPLES), what


def read_rows(settings: Settings) -> TokenRows | None:
    """Encode the training rows with the base's tokenizer, where both are on this machine; None where they are not."""
    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.dataset import load_file

    path = Path(settings.data.train_file).expanduser()
    try:
        if not path.is_file():
            return None
        tokenizer = ChatTokenizer.load_for(settings)
        return load_file(path, tokenizer, settings.training.max_seq_length).rows or None
    except (ModelFileError, OSError):
        return None


def _count_rows(path: Path) -> int:
    try:
        with open_regular(path) as file:
            return sum(1 for _ in read_lines(file))
    except OSError:
        return 0


def _remembered(rows: TokenRows, held_out: TokenRows | None) -> Callable[[Settings], Workload]:
    """Count each cut of the rows into micro-batches once, however many configurations are compared."""
    from kit.data.batch_order import order_batches
    from kit.plan.workload import workload_of

    counted: dict[tuple[int, ...], Workload] = {}
    evaluated = () if held_out is None else (held_out,)

    def workload(settings: Settings) -> Workload:
        training = settings.training
        key = (
            training.per_device_train_batch_size,
            settings.effective_batch_size,
            training.max_seq_length,
            training.padding_free,
            training.sort_within_update,
        )
        if key not in counted:
            counted[key] = workload_of(order_batches(settings, rows.cut(training.max_seq_length), *evaluated), settings)
        return counted[key]

    return workload
