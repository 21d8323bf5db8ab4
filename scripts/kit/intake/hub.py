"""A Hugging Face dataset, streamed through ``datasets``: from the hub, a folder, or ``save_to_disk``.

No code of a dataset's repository is ever run: datasets 4 and later cannot, and nothing here allows it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.data.conversations import RowProblem
from kit.intake.sources import is_saved_dataset
from kit.intake.tables import ROWS_AT_ONCE, check_growth, rows_of
from kit.intake.unpack import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator

_REASON_SHOWN = 160


def read_hub(name: str, split: str, revision: str | None) -> Iterator[tuple[int, Any] | RowProblem]:
    """Yield each row of one split with its number.

    Raises:
        FileError: The dataset, the split or a part of it cannot be loaded.
    """
    number = 0
    try:
        dataset = _open(name, split, revision)
        # As Arrow types: the library's conversion to Python fails on times beyond Python's range.
        for table in dataset.with_format("arrow").iter(ROWS_AT_ONCE):
            for batch in table.combine_chunks().to_batches():
                for item in rows_of(batch, number + 1):
                    number += 1
                    if not isinstance(item, RowProblem) and dataset.features:
                        item = number, dict(dataset.features.decode_example(item[1]))  # noqa: PLW2901 - the same row
                    yield item
    except FileError:
        raise
    except Exception as exc:  # datasets raises what its dozens of readers raise
        what = "cannot be loaded" if number == 0 else f"cannot be read after row {number}"
        raise FileError(number + 1, f"{what} ({_reason(exc)})", _advice(exc, revision)) from exc


def _open(name: str, split: str, revision: str | None) -> Any:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    with contextlib.suppress(ImportError):
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    import datasets
    from pyarrow import parquet

    datasets.disable_progress_bars()
    folder = Path(name).expanduser()
    for path in folder.rglob("*") if folder.is_dir() else ():
        if not (path.is_file() or path.is_dir()):
            raise FileError(1, f"cannot be loaded: {path.name} is not a regular file", "remove it")
        if path.suffix == ".parquet" and path.is_file():
            check_growth(parquet.read_metadata(path), path.stat().st_size)
    if is_saved_dataset(folder):
        saved = datasets.load_from_disk(str(folder))
        if not isinstance(saved, datasets.DatasetDict):
            return saved
        if split not in saved:
            raise FileError(1, f"has no split {split!r}", f"--split one of {', '.join(sorted(map(str, saved)))}")
        return saved[split]
    return datasets.load_dataset(
        str(folder) if folder.is_dir() else name, split=split, revision=revision, streaming=True
    )


def _reason(exc: Exception) -> str:
    text = " ".join(str(exc).split()) or type(exc).__name__
    return text if len(text) <= _REASON_SHOWN else f"{text[:_REASON_SHOWN]}…"


def _advice(exc: Exception, revision: str | None) -> str:
    kind, text = type(exc).__name__, str(exc)
    if "split" in text.lower():
        return "name one of its splits with --split"
    if "Gated" in kind or "401" in text or "403" in text:
        return "accept the dataset's terms on its page, then `hf auth login` or set HF_TOKEN"
    if "script" in text.lower() or "trust_remote_code" in text:
        return "its repository needs its own code, which is never run: export it to Parquet"
    if revision:
        return "check the name, the --revision and the network"
    return "check the name and the network, or download its files and name their folder"
