"""Curves out of metrics: every step goes in, and few enough points for a page come out, peaks included."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kit.files.numbers import finite, logged

MOST_POINTS = 700  # of one curve on the page: more than a screen shows side by side
_RATE_POINTS = 120
_SMOOTH_SHARE = 40  # the smoothed loss follows about a fortieth of the run


@dataclass(frozen=True)
class Curve:
    """Finite values over optimizer steps."""

    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether there is anything to draw."""
        return bool(self.steps)


@dataclass(frozen=True)
class Curves:
    """A run's curves over optimizer steps.

    Attributes:
        loss: Training loss a step, thinned to its extremes.
        tokens_per_second: Over windows of a hundredth of the run.
        memory_bytes: Where the metrics hold it.
        broken_steps: Steps whose loss is NaN or infinite.
        epochs: The step at which each epoch ends, by its number.
    """

    loss: Curve = Curve()
    smooth_loss: Curve = Curve()
    eval_loss: Curve = Curve()
    learning_rate: Curve = Curve()
    grad_norm: Curve = Curve()
    smooth_grad_norm: Curve = Curve()
    tokens_per_second: Curve = Curve()
    memory_bytes: Curve = Curve()
    broken_steps: tuple[int, ...] = ()
    epochs: tuple[tuple[int, int], ...] = ()


def curves_of(steps: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]]) -> Curves:
    """Make the curves from the lines of a ``metrics.jsonl``."""
    loss, grad_norm = curve(steps, "loss"), curve(steps, "grad_norm")
    return Curves(
        loss=thin(loss),
        smooth_loss=thin(smooth(loss)),
        eval_loss=thin(curve(evaluations, "eval_loss")),
        learning_rate=thin(curve(steps, "learning_rate")),
        grad_norm=thin(grad_norm),
        smooth_grad_norm=thin(smooth(grad_norm)),
        tokens_per_second=rate(steps),
        memory_bytes=thin(curve(steps, "memory_bytes")),
        broken_steps=tuple(
            line["step"] for line in steps if (value := logged(line, "loss")) is not None and not math.isfinite(value)
        ),
        epochs=epoch_ends(steps),
    )


def curve(lines: Sequence[dict[str, Any]], key: str) -> Curve:
    """Take one key's finite values out of the lines."""
    points = [(line["step"], value) for line in lines if (value := finite(line.get(key))) is not None]
    return Curve(tuple(step for step, _ in points), tuple(value for _, value in points))


def thin(full: Curve, most: int = MOST_POINTS) -> Curve:
    """Keep the lowest and the highest point of each stretch, so that no spike is lost, and the two ends."""
    count = len(full.steps)
    if count <= most:
        return full
    stretches = max(1, (most - 2) // 2)
    kept = {0, count - 1}
    for number_ in range(stretches):
        stretch = range(number_ * count // stretches, (number_ + 1) * count // stretches)
        kept |= {min(stretch, key=full.values.__getitem__), max(stretch, key=full.values.__getitem__)}
    order = sorted(kept)
    return Curve(tuple(full.steps[index] for index in order), tuple(full.values[index] for index in order))


def smooth(full: Curve) -> Curve:
    """Average exponentially, without the pull of the beginning (Adam's bias correction)."""
    keep = 1 - 2 / (max(5, len(full.steps) / _SMOOTH_SHARE) + 1)
    total = weight = 0.0
    averages = []
    for value in full.values:
        total = keep * total + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        averages.append(min(max(total / weight, -sys.float_info.max), sys.float_info.max))
    return Curve(full.steps, tuple(averages))


def rate(lines: Sequence[dict[str, Any]]) -> Curve:
    """Return tokens per second over windows of the run, from the cumulative counts."""
    points = [
        (line["step"], tokens, seconds)
        for line in lines
        if (tokens := finite(line.get("tokens"))) is not None and (seconds := finite(line.get("seconds"))) is not None
    ]
    window = max(1, len(points) // _RATE_POINTS)
    found = []
    for before, after in zip(points[::window], points[window::window], strict=False):
        if after[2] > before[2] and after[1] >= before[1]:
            speed = (after[1] - before[1]) / (after[2] - before[2])
            if math.isfinite(speed):
                found.append((after[0], speed))
    return Curve(tuple(step for step, _ in found), tuple(value for _, value in found))


def epoch_ends(lines: Sequence[dict[str, Any]]) -> tuple[tuple[int, int], ...]:
    """Return (step, epoch) of the first step at or past each whole epoch."""
    ends: list[tuple[int, int]] = []
    done = 0
    for line in lines:
        epoch = finite(line.get("epoch"))
        if epoch is not None and 1 <= epoch < 1e9 and int(epoch) > done:  # noqa: PLR2004 - a file may hold anything
            done = int(epoch)
            ends.append((line["step"], done))
    return tuple(ends)
