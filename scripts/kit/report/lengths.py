"""Row lengths in tokens, from the receipt, else from the unchanged data file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.interpreter import PROJECT_ROOT
from kit.files.numbers import finite, listed, mapping

if TYPE_CHECKING:
    from kit.run_directory.history import Run

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
        return Lengths(missing_because="the receipt records no data file")
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
    from kit.audit.histogram import histogram
    from kit.audit.training_file import lengths_of as counted
    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.dataset import load_file
    from kit.files.digest import file_sha256
    from kit.model.files import ModelFileError

    named = Path(str(entry["path"])).expanduser()
    path = named if named.is_file() else PROJECT_ROOT / named
    try:
        if not path.is_file():
            return Lengths(missing_because=f"{named} no longer exists")
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            return Lengths(missing_because=f"{named} is too large to tokenise again for a report")
        if file_sha256(path) != entry.get("sha256"):
            return Lengths(missing_because=f"{named} has changed since the run")
        limit = run.settings.training.max_seq_length
        lengths = counted(load_file(path, ChatTokenizer.load_for(run.settings), limit))
    except (OSError, ValueError, TypeError, ModelFileError) as exc:
        return Lengths(missing_because=f"{named} cannot be tokenised again: {exc}")
    if truncated is None:
        truncated = sum(rows for length, rows in lengths.items() if length > limit)
    found = histogram(lengths)
    return Lengths(found.edges, found.counts, truncated, "" if lengths else "there are no rows")
