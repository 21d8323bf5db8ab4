"""A training run's metrics on disk, progress on the terminal, and watchdog."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from transformers import TrainerCallback

from kit.cli.console import duration
from kit.files.numbers import finite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kit.data.batch_order import BatchOrder
    from kit.supervise.watchdog import BadLoss, Watchdog
    from kit.train.saving import MemoryMeter


class TrainingCallback(TrainerCallback):  # type: ignore[misc]
    """Writes ``metrics.jsonl``, one line a step, and shows the progress.

    Each line holds ``step``, ``epoch``, ``loss``, ``learning_rate``, ``grad_norm`` (before clipping), ``tokens``
    (cumulative), ``seconds`` of training so far and ``memory_bytes`` (see ``MemoryMeter``); evaluations are lines with
    ``step`` and ``eval_loss``. What is not a number is written as null. A resumed run continues its
    checkpoint's lines, so the file equals an unstopped run's. Losses are read off the device only when they
    are logged, so that watching does not slow the run.
    """

    def __init__(
        self,
        plan: BatchOrder,
        metrics_path: Path,
        watchdog: Watchdog,
        report: Callable[[BadLoss], None],
        memory: MemoryMeter,
    ) -> None:
        """Watch one run; ``report`` receives bad losses, and raises to end the run."""
        self.plan, self.watchdog, self.report, self.memory = plan, watchdog, report, memory
        self.path = metrics_path
        self.trainer: Any = None  # set once the trainer is built: callbacks come first
        self.at_each_line: Callable[[], None] = lambda: None
        self.last_loss: float | None = None
        self.eval_losses: list[tuple[int, float | None]] = []
        self._pending: list[dict[str, Any]] = []
        self._rate = 0.0
        self._began_at, self._seconds_before = 0, 0.0
        self._started = time.monotonic()
        self._bar: Any = None
        self._read_earlier()
        self._file = metrics_path.open("a", encoding="utf-8")

    def _read_earlier(self) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        for line in map(json.loads, lines):
            if "eval_loss" in line:
                self.eval_losses.append((line["step"], line["eval_loss"]))
            else:
                self.last_loss, self._began_at = line.get("loss"), line["step"]
                self._seconds_before = line.get("seconds") or 0.0
                self.watchdog.judge(line["step"], _number(self.last_loss), line.get("grad_norm"))

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
        """Start the clock and, on a terminal, the bar."""
        self._started = time.monotonic()
        self.memory.read()  # what it took to load is no step's
        self._bar = tqdm(
            total=self.plan.steps, initial=self._began_at, unit="step", leave=False, disable=not sys.stderr.isatty()
        )

    def on_step_begin(self, _args: Any, _state: Any, _control: Any, **kwargs: Any) -> None:
        """Keep the learning rate of this step: afterwards the scheduler has moved on."""
        self._rate = kwargs["optimizer"].param_groups[0]["lr"]

    def on_step_end(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        """Note the step; write and show where it is time."""
        step = state.global_step
        # transformers sees one long epoch: the plan holds the real ones.
        state.epoch = step / self.plan.steps_per_epoch
        self._pending.append(
            {
                "step": step,
                "epoch": round(state.epoch, 4),
                "learning_rate": self._rate,
                "grad_norm": self.trainer.grad_norm,
                "tokens": self.plan.tokens[step - 1],
                "seconds": round(self._seconds(), 3),
                "memory_bytes": self.memory.read(),
            }
        )
        self._bar.update()
        if step % args.logging_steps == 0 or step in {1, self.plan.steps}:
            self.flush()
            self._show(step)
            self.at_each_line()
        if step == self.plan.steps:
            # transformers 5 saves and evaluates at the end by itself, 4.36 does neither.
            control.should_save = True
            control.should_evaluate = bool(self.plan.eval_rows)

    def on_evaluate(self, _args: Any, state: Any, _control: Any, metrics: dict[str, float], **_kwargs: Any) -> None:
        """Write and show an evaluation."""
        self.flush()
        loss = metrics["eval_loss"]
        self.eval_losses.append((state.global_step, finite(loss)))
        self._write({"step": state.global_step, "eval_loss": finite(loss)})
        self._file.flush()
        tqdm.write(f"step {state.global_step:>6,}  validation loss {loss:.4f}", file=sys.stderr)

    def close(self) -> None:
        """Write what is left; safe to call after a failure."""
        if self._bar is not None:
            self._bar.close()
        self.memory.close()
        try:
            self.flush()
        finally:
            self._file.close()

    def flush(self) -> None:
        """Read the losses that nobody read yet, judge and write them."""
        found: list[BadLoss] = []
        for line in self._pending:
            loss = float(self.trainer.step_losses.pop(line["step"]))
            norm = None if line["grad_norm"] is None else float(line["grad_norm"])
            self.last_loss = finite(loss)
            self._write({**line, "loss": finite(loss), "grad_norm": None if norm is None else finite(norm)})
            bad = self.watchdog.judge(line["step"], loss, norm)
            if bad is not None:
                found.append(bad)
        self._pending.clear()
        self._file.flush()
        for bad in found:
            self.report(bad)

    def sync(self) -> None:
        """Bring every line of every finished step to the disk."""
        self.flush()
        os.fsync(self._file.fileno())

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, allow_nan=False) + "\n")

    def _show(self, step: int) -> None:
        seconds = time.monotonic() - self._started
        done = step - self._began_at
        tokens = self.plan.tokens[step - 1] - (self.plan.tokens[self._began_at - 1] if self._began_at else 0)
        left = seconds / done * (self.plan.steps - step)
        loss = "not finite" if self.last_loss is None else f"{self.last_loss:.4f}"
        tqdm.write(
            f"step {step:>6,}/{self.plan.steps:,}  epoch {step / self.plan.steps_per_epoch:.2f}  "
            f"loss {loss}  lr {self._rate:.2e}  {tokens / seconds:,.0f} tokens/s  "
            f"{duration(left)} left",
            file=sys.stderr,
        )


def _number(value: float | None) -> float:
    return math.nan if value is None else value
