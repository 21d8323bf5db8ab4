"""Say how long the run can take: an upper bound from the number of rows, since their lengths are not known yet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kit.estimate import training_hours, training_tokens
from kit.findings import Finding, ok
from kit.model.shape import shape_of

if TYPE_CHECKING:
    from kit.rules.situation import Situation

_CHUNK_BYTES = 1 << 20


def duration(run: Situation) -> list[Finding]:
    """State tokens and hours if every row is full length; silent where the rows cannot be counted."""
    shape = shape_of(run.settings.model.model_name_or_path)
    path = Path(run.settings.data.train_file).expanduser()
    if shape is None or not path.is_file():
        return []
    tokens = training_tokens(run.settings, _count_lines(path))
    cores = run.machine.apple.gpu_cores if run.machine.apple else None
    span = training_hours(shape, tokens, run.platform, cores)
    if span is None:
        return []
    low, high = span
    message = (
        f"at most {tokens / 1e6:,.1f} M tokens if every row is full length: {low:,.1f} to {high:,.1f} h on "
        f"{run.platform} by arithmetic; shorter rows take less"
    )
    return [ok("config.duration", message, run.where("data.train_file"))]


def _count_lines(path: Path) -> int:
    """Count line ends; a last line without one counts too."""
    lines, last = 0, b"\n"
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            lines += chunk.count(b"\n")
            last = chunk[-1:]
    return lines + (last != b"\n")
