"""What stands beside a training run: its metrics on disk, its progress on the terminal, its clean stop on a signal."""

from __future__ import annotations

import json
import signal
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from transformers import TrainerCallback

from kit.console import duration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from kit.run.plan import TrainingPlan


class StopRequest:
    """A wish to stop, sent by signal: the run saves at the end of its step. A second signal stops at once."""

    def __init__(self) -> None:
        """Start without a wish."""
        self.signal: int | None = None

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take SIGINT and SIGTERM as wishes while the run is under way."""
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            raise SystemExit(128 + number)
        self.signal = number
        tqdm.write(
            f"{signal.Signals(number).name}: stopping after this step and saving; once more stops at once",
            file=sys.stderr,
        )

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM, 0 without a wish."""
        return 0 if self.signal is None else 128 + self.signal


class TrainingWatch(TrainerCallback):  # type: ignore[misc]
    """Writes ``metrics.jsonl``, one line a step, and keeps a person informed.

    Each line holds ``step``, ``epoch``, ``loss``, ``learning_rate``, ``grad_norm`` (before clipping), ``tokens``
    (cumulative) and ``seconds`` since the first step; evaluations are lines with ``step`` and ``eval_loss``.
    Losses are read off the device only when they are logged, so that watching does not slow the run.
    """

    def __init__(self, plan: TrainingPlan, metrics_path: Path, stop: StopRequest) -> None:
        """Watch one run of ``plan``, writing to ``metrics_path``."""
        self.plan, self.stop = plan, stop
        self.trainer: Any = None  # set once the trainer is built: callbacks come first
        self.last_loss: float | None = None
        self.eval_losses: list[tuple[int, float]] = []
        self._file = metrics_path.open("w", encoding="utf-8")
        self._pending: list[dict[str, Any]] = []
        self._rate = 0.0
        self._started = 0.0
        self._bar: Any = None

    def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
        """Start the clock and, on a terminal, the bar."""
        self._started = time.monotonic()
        self._bar = tqdm(total=self.plan.steps, unit="step", leave=False, disable=not sys.stderr.isatty())

    def on_step_begin(self, _args: Any, _state: Any, _control: Any, **kwargs: Any) -> None:
        """Keep the learning rate of this step: afterwards the scheduler has moved on."""
        self._rate = kwargs["optimizer"].param_groups[0]["lr"]

    def on_step_end(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        """Note the step; write and show where it is time; stop where a signal asked for it."""
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
                "seconds": round(time.monotonic() - self._started, 3),
            }
        )
        self._bar.update()
        if step % args.logging_steps == 0 or step in {1, self.plan.steps}:
            self._flush()
            self._show(step)
        if self.stop.signal is not None:
            control.should_save = True
            control.should_training_stop = True
        elif step == self.plan.steps:
            # transformers 5 saves and evaluates at the end by itself, 4.36 does neither.
            control.should_save = True
            control.should_evaluate = bool(self.plan.eval_rows)

    def on_evaluate(self, _args: Any, state: Any, _control: Any, metrics: dict[str, float], **_kwargs: Any) -> None:
        """Write and show an evaluation."""
        self._flush()
        self.eval_losses.append((state.global_step, metrics["eval_loss"]))
        self._write({"step": state.global_step, "eval_loss": metrics["eval_loss"]})
        tqdm.write(f"step {state.global_step:>6,}  validation loss {metrics['eval_loss']:.4f}", file=sys.stderr)

    def on_save(self, args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Say where the checkpoint is."""
        tqdm.write(
            f"step {state.global_step:>6,}  saved {args.output_dir}/checkpoint-{state.global_step}", file=sys.stderr
        )

    def close(self) -> None:
        """Write what is left; safe to call after a failure."""
        if self._bar is not None:
            self._bar.close()
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        for line in self._pending:
            self.last_loss = float(self.trainer.step_losses[line["step"] - 1])
            norm = line["grad_norm"]
            self._write({**line, "loss": self.last_loss, "grad_norm": None if norm is None else float(norm)})
        self._pending.clear()
        self._file.flush()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")

    def _show(self, step: int) -> None:
        seconds = time.monotonic() - self._started
        left = seconds / step * (self.plan.steps - step)
        tqdm.write(
            f"step {step:>6,}/{self.plan.steps:,}  epoch {step / self.plan.steps_per_epoch:.2f}  "
            f"loss {self.last_loss:.4f}  lr {self._rate:.2e}  {self.plan.tokens[step - 1] / seconds:,.0f} tokens/s  "
            f"{duration(left)} left",
            file=sys.stderr,
        )
