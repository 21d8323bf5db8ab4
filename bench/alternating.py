"""Two trainers in one process that take a step in turns: what the one costs beside the other. Imports torch.

A machine's speed wanders by more than what is looked for, within seconds; two steps that follow each other meet the
same machine. Everything between the end of one trainer's step and the end of its next is in that trainer's turn.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from bench.clocks import StepProfiler
from bench.steps import build_kit, build_trl, settings_and_plan
from kit.run_directory.names import METRICS
from kit.supervise.stall import StallWatch
from kit.supervise.watchdog import Watchdog
from kit.train.callback import TrainingCallback
from kit.train.saving import MemoryMeter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.variants import Scale, Variant
    from kit.supervise.stall import Stall
    from kit.supervise.watchdog import BadLoss

_SIDES = 2


class Alternation:
    """Whose turn it is; nobody begins before both are there, and nobody waits for one that has left."""

    def __init__(self) -> None:
        """Begin with the first side, 0."""
        self._changed = threading.Condition()
        self._arrived, self._turn, self._left = 0, 0, False

    def begin(self, side: int) -> None:
        """Arrive, and wait for the first turn."""
        with self._changed:
            self._arrived += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._left or (self._arrived == _SIDES and self._turn == side))

    def pass_on(self, side: int) -> None:
        """Let the other side take its turn, and wait for the next own one."""
        with self._changed:
            self._turn = 1 - side
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._left or self._turn == side)

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Leave at the end, however it comes: the other side goes on alone."""
        try:
            yield
        finally:
            with self._changed:
                self._left = True
                self._changed.notify_all()


class AlternatingCallback(TrainerCallback):  # type: ignore[misc]
    """Times a trainer's steps, each in its turn; has to be the last callback.

    Attributes:
        seconds: Of each optimizer step, with what comes between it and the one before.
    """

    def __init__(self, turns: Alternation, side: int) -> None:
        """Take the turns of one side, 0 or 1."""
        self.seconds: list[float] = []
        self._turns, self._side, self._began = turns, side, 0.0

    def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
        """Wait for the other."""
        self._turns.begin(self._side)
        self._began = time.perf_counter()

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Let the other take a step."""
        self.seconds.append(time.perf_counter() - self._began)
        self._turns.pass_on(self._side)
        self._began = time.perf_counter()


class _Quiet:
    """Hears of stalls in a benchmark, where nothing is to be done about them."""

    def stalled(self, found: Stall) -> None:
        pass

    went_on = give_up = stalled


@dataclass(frozen=True)
class Competitors:
    """The kit and trl's ``SFTTrainer``, on the same full rows, on the CPU.

    The kit trains as a run of it does: with its metrics, its watchdog and its eye on stalled steps.

    Attributes:
        kit: The kit's settings.
        plain: trl's settings.
        scale: How much both train.
        base: The base model's folder.
    """

    kit: Variant
    plain: Variant
    scale: Scale
    base: Path

    def steps_in_turns(self, folder: Path, *, kit_first: bool) -> tuple[list[float], list[float]]:
        """Build both and train them, a step each in turns.

        Args:
            folder: Where both may write.
            kit_first: Who takes the first step.

        Returns:
            The seconds of each timed step of the kit, and of trl.
        """
        turns = Alternation()
        ours, others = AlternatingCallback(turns, 1 - kit_first), AlternatingCallback(turns, int(kit_first))
        other = self._build_plain(folder, others)
        with self._built_kit(folder, ours) as trainer, ThreadPoolExecutor(_SIDES) as threads:

            def train(one: Any) -> None:
                with turns.leaving():
                    one.train()

            for done in [threads.submit(train, one) for one in (trainer, other)]:
                done.result()
        return ours.seconds[self.scale.warm_up :], others.seconds[self.scale.warm_up :]

    def operator_calls(self, folder: Path) -> tuple[float, float]:
        """Count torch's operators in a step, one side after the other: the same on every machine, however busy.

        Returns:
            The calls a step of the kit, and of trl.
        """
        ours, others = (StepProfiler("cpu", self.scale.warm_up) for _ in range(_SIDES))
        with self._built_kit(folder, ours) as trainer:
            trainer.train()
        self._build_plain(folder, others).train()
        return ours.operator_calls(), others.operator_calls()

    @contextmanager
    def _built_kit(self, folder: Path, callback: TrainerCallback) -> Iterator[Any]:
        settings, plan = settings_and_plan(self.kit, "full", self.scale, self.base, "cpu")
        watchdog, memory = Watchdog(self.scale.shape.vocab_size), MemoryMeter("cpu")
        watch = TrainingCallback(plan, folder / METRICS, watchdog, _ignore, memory)
        trainer = build_kit(settings, plan, "cpu", [watch, callback])
        watch.trainer = trainer
        stalls = StallWatch(settings.training.stall_timeout, _Quiet(), lambda: "a step", None)
        trainer.check_stop = lambda: stalls.beat(trainer.state.global_step)
        with closing(watch), stalls:
            yield trainer

    def _build_plain(self, folder: Path, callback: TrainerCallback) -> Any:
        settings, plan = settings_and_plan(self.plain, "full", self.scale, self.base, "cpu")
        return build_trl(settings, plan, "cpu", [callback], str(folder / "trl"))


def _ignore(_found: BadLoss) -> None:
    pass
