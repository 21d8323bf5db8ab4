"""What ``make watch`` shows: a run's metrics as they come in, fitted to the terminal."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kit.cli.console import duration, gigabytes
from kit.files.numbers import finite, number

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:-=+*##"
_DECADES = 30.0  # a loss that fell by more than this factor would be a line along the bottom
_RECENT = 50  # steps the rate and the time left are taken from


@dataclass
class RunProgress:
    """A run's progress: every loss, and the other values shown.

    Attributes:
        planned_steps: Optimizer steps there are to do; None where the receipt does not say.
        losses: Every loss so far, NaN included.
        last: The newest line of a step.
        evaluations: Step and validation loss.
    """

    planned_steps: int | None = None
    losses: array[float] = field(default_factory=lambda: array("d"))
    last: dict[str, Any] = field(default_factory=dict)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    _recent: deque[tuple[int, float, float]] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def add(self, lines: Iterable[dict[str, Any]]) -> None:
        """Take in new lines of the metrics."""
        for line in lines:
            if "eval_loss" in line:
                self.evaluations.append((line["step"], _or_nan(line["eval_loss"])))
                continue
            self.last = line
            self.losses.append(_or_nan(line.get("loss")))
            tokens, seconds = finite(line.get("tokens")), finite(line.get("seconds"))
            if tokens is not None and seconds is not None:
                self._recent.append((line["step"], tokens, seconds))

    @property
    def step(self) -> int:
        """The newest step."""
        return int(self.last.get("step", 0))

    @property
    def tokens_per_second(self) -> float | None:
        """Over the newest steps."""
        span = self._span()
        return span and span[1] / span[2]

    @property
    def seconds_left(self) -> float | None:
        """At the pace of the newest steps; None where the pace or the end is not known."""
        span = self._span()
        if span is None or not self.planned_steps:
            return None
        left = finite(self.planned_steps - self.step)
        return None if left is None else finite(max(0.0, left) * span[2] / span[0])

    def _span(self) -> tuple[float, float, float] | None:
        """Return steps, tokens and seconds between the oldest and the newest of the recent steps."""
        if not self._recent:
            return None
        first, last = self._recent[0], self._recent[-1]
        if len(self._recent) == 1:
            first = (first[0] - 1, 0.0, 0.0) if first[0] == 1 else last
        steps, tokens, seconds = finite(last[0] - first[0]), last[1] - first[1], last[2] - first[2]
        return (steps, tokens, seconds) if steps and steps > 0 and seconds > 0 else None


def _or_nan(value: Any) -> float:
    found = number(value)
    return math.nan if found is None else found


def figures(progress: RunProgress) -> list[tuple[str, str]]:
    """Return what is shown besides the progress and the plot: name and value."""
    last = progress.last
    shown = [("loss", _written(progress.losses[-1] if progress.losses else None, ".4f"))]
    if progress.evaluations:
        step, loss = progress.evaluations[-1]
        shown.append(("validation", f"{_written(loss, '.4f')} at step {step:,}"))
    shown.append(("learning rate", _written(last.get("learning_rate"), ".2e")))
    shown.append(("gradient norm", _written(last.get("grad_norm"), ".3g")))
    shown.append(("tokens/s", _written(progress.tokens_per_second, ",.0f")))
    if (memory := finite(last.get("memory_bytes"))) is not None:
        shown.append(("memory", gigabytes(memory)))
    left = progress.seconds_left
    shown.append(("time left", "not known yet" if left is None else duration(left)))
    return shown


def plain_line(progress: RunProgress) -> str:
    """Write the newest step in one line, for a log file."""
    of = f"/{progress.planned_steps:,}" if progress.planned_steps else ""
    words = "  ".join(f"{name} {value}" for name, value in figures(progress))
    return f"step {progress.step:>6,}{of}  {words}"


def _written(value: Any, form: str) -> str:
    found = number(value)
    if found is None:
        return "-"
    return format(found, form) if math.isfinite(found) else "not finite"


def plotted(losses: Sequence[float]) -> tuple[Sequence[float], str]:
    """Return the losses to plot, as logarithms where they fell far, and the label for it."""
    real = [loss for loss in losses if math.isfinite(loss)]
    if not real or min(real) <= 0 or max(real) < _DECADES * min(real):
        return losses, ""
    return [math.log10(loss) if math.isfinite(loss) else math.nan for loss in losses], ", logarithmic"


def plot(values: Sequence[float], width: int, height: int, *, unicode: bool = True) -> list[str]:
    """Plot values as columns of blocks, the newest at the right, each column the mean of its share.

    A value that is not finite leaves a gap with an ``x`` at the bottom.

    Returns:
        ``height`` lines, the highest values at the top; fewer than ``width`` columns for fewer values.
    """
    blocks = _BLOCKS if unicode else _ASCII
    columns = _means(values, width)
    real = [value for value in columns if math.isfinite(value)]
    low, high = min(real, default=0.0), max(real, default=0.0)
    levels = height * (len(blocks) - 1)
    span = (high - low) or 1.0
    lines = []
    for row in reversed(range(height)):
        text = ""
        for value in columns:
            if not math.isfinite(value):
                text += "x" if row == 0 else " "
                continue
            filled = max(1, round((value - low) / span * levels)) - row * (len(blocks) - 1)
            text += blocks[min(max(filled, 0), len(blocks) - 1)]
        lines.append(text)
    return lines


def _means(values: Sequence[float], width: int) -> list[float]:
    count = min(len(values), max(1, width))
    means = []
    for index in range(count):
        share = values[index * len(values) // count : (index + 1) * len(values) // count]
        means.append(sum(share) / len(share))
    return means
