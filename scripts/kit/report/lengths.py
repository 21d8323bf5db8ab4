"""Row lengths in tokens, from the receipt, else from the unchanged data file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.interpreter import PROJECT_ROOT
from kit.files.numbers import finite, listed, mapping

if TYPE_CHECKING:
    from kit.run_folder.history import Run

_BINS = 24
# Tokenising again what a run has tokenised: seconds up to here, minutes above.
_LARGEST_FILE_BYTES = 32_000_000


@dataclass(frozen=True)
class Lengths:
    """A histogram of row lengths.

    Attributes:
        edges: Of the bins, in tokens; one more than there are counts.
        counts: Rows in each bin.
        truncated: Rows that were cut; None where not known.
        missing_because: Why there is no histogram; empty where there is one.
    """

    edges: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()
    truncated: int | None = None
    missing_because: str = ""

    def __bool__(self) -> bool:
        """Tell whether there is anything to draw."""
        return bool(self.counts)


def lengths_of(run: Run) -> Lengths:
    """Find the training rows' lengths."""
    entry = mapping(next(iter(listed(run.receipt.get("data"))), None))
    if not entry.get("path"):
        return Lengths(missing_because="the receipt names no data file")
    truncated = finite(entry.get("truncated_rows"))
    cut = None if truncated is None else int(truncated)
    recorded = _recorded(mapping(entry.get("length_histogram")), cut)
    return recorded or _counted_again(run, entry, cut)


def _recorded(histogram: dict[str, Any], truncated: int | None) -> Lengths | None:
    given_edges, given_counts = histogram.get("edges"), histogram.get("counts")
    if not isinstance(given_edges, list) or not isinstance(given_counts, list):
        return None
    edges = [edge for value in given_edges if (edge := finite(value)) is not None]
    counts = [count for value in given_counts if (count := finite(value)) is not None]
    if not counts or len(edges) != len(counts) + 1 or edges != sorted(edges):
        return None
    return Lengths(tuple(edges), tuple(counts), truncated)


def _counted_again(run: Run, entry: dict[str, Any], truncated: int | None) -> Lengths:
    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.dataset import load_file
    from kit.files.digest import file_sha256
    from kit.model.files import ModelFileError

    named = Path(str(entry["path"])).expanduser()
    path = named if named.is_file() else PROJECT_ROOT / named
    try:
        if not path.is_file():
            return Lengths(missing_because=f"{named} is no longer there")
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            return Lengths(missing_because=f"{named} is too large to tokenise again for a report")
        if file_sha256(path) != entry.get("sha256"):
            return Lengths(missing_because=f"{named} has changed since the run")
        settings = run.settings
        tokenizer = ChatTokenizer.load_for(settings)
        rows = load_file(path, tokenizer, settings.training.max_seq_length).rows
    except (OSError, ValueError, TypeError, ModelFileError) as exc:
        return Lengths(missing_because=f"{named} cannot be tokenised again: {exc}")
    if truncated is None:
        truncated = int((rows.full_lengths > settings.training.max_seq_length).sum())
    return histogram_of(rows.full_lengths.tolist(), truncated)


def histogram_of(lengths: list[int], truncated: int | None = None) -> Lengths:
    """Count lengths into bins of a whole number of tokens."""
    if not lengths:
        return Lengths(missing_because="there are no rows")
    low, high = min(lengths), max(lengths)
    width = max(1, -(-(high - low + 1) // _BINS))
    counts = [0] * (-(-(high - low + 1) // width))
    for length in lengths:
        counts[(length - low) // width] += 1
    return Lengths(
        tuple(float(low + index * width) for index in range(len(counts) + 1)), tuple(map(float, counts)), truncated
    )
