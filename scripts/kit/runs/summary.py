"""One run summed up, for the table of runs, the report and comparisons."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.files.numbers import finite, listed, logged, mapping
from kit.run_directory.liveness import state_of

if TYPE_CHECKING:
    from kit.run_directory.history import Run

_ORIGIN = re.compile(r"(.+\.ya?ml):\d+\Z")


@dataclass(frozen=True)
class Summary:
    """One run summed up; None where the run does not say.

    Attributes:
        started: When, in UTC, as ISO 8601.
        config: The configuration file it came from.
        loss: Of the last logged step; may be NaN.
        lowest_eval_loss: The lowest validation loss.
        tokens_per_second: Over the training time, evaluations included.
        peak_memory_bytes: The device's, or on a CPU the process's.
    """

    name: str
    folder: str
    started: str | None
    config: str | None
    data: str | None
    rows: int | None
    steps: int
    planned_steps: int | None
    loss: float | None
    eval_loss: float | None
    lowest_eval_loss: float | None
    seconds: float | None
    tokens_per_second: float | None
    peak_memory_bytes: int | None
    state: str


def summarise(run: Run) -> Summary:
    """Sum up one run."""
    receipt = run.receipt
    train = next((file for file in listed(receipt.get("data")) if isinstance(file, dict)), {})
    losses = [loss for line in reversed(run.steps) if (loss := logged(line, "loss")) is not None]
    evaluations = [loss for line in run.evaluations if (loss := logged(line, "eval_loss")) is not None]
    real = [loss for loss in evaluations if finite(loss) is not None]
    last = run.steps[-1] if run.steps else {}
    return Summary(
        name=run.name,
        folder=str(run.folder),
        started=str(receipt["started_at"]) if receipt.get("started_at") else None,
        config=config_file(run),
        data=Path(str(train["path"])).name if train.get("path") else None,
        rows=_whole(train.get("rows")),
        steps=int(last.get("step", 0)),
        planned_steps=_whole(receipt.get("steps")),
        loss=losses[0] if losses else None,
        eval_loss=evaluations[-1] if evaluations else None,
        lowest_eval_loss=min(real) if real else None,
        # While a run goes on, its metrics are ahead of its receipt.
        seconds=max(filter(None, (finite(receipt.get("seconds")), finite(last.get("seconds")))), default=None),
        tokens_per_second=_rate(last),
        peak_memory_bytes=_whole(receipt.get("peak_memory_bytes")),
        state=state_of(run),
    )


def config_file(run: Run) -> str | None:
    """Return the configuration file most of the run's values came from."""
    for origin in mapping(run.receipt.get("origins")).values():
        if found := _ORIGIN.match(str(origin)):
            return found.group(1)
    return None


def _rate(last: dict[str, Any]) -> float | None:
    tokens, seconds = finite(last.get("tokens")), finite(last.get("seconds"))
    return tokens / seconds if tokens and seconds else None


def _whole(value: Any) -> int | None:
    found = finite(value)
    return None if found is None else int(found)
