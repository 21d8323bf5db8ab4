"""Kill a real run again and again, resume it each time, and compare its end with that of a run nobody touched.

The parent imports the libraries and prepares the job once; every attempt is a forked child, so that an attempt costs a
second and not fifteen. After each kill the folder is judged as a stranger would find it.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil

from kit.cli.foreground import SIGNALS
from kit.config.resolve import resolve
from kit.run_directory.names import METRICS
from kit.train.resume import decide
from kit.train.training import run
from torture.forked import end_threads, exit_code_of
from torture.judging import Report, Saved, outcome_of
from torture.moments import count_calls, count_file_operations, die_at_file_operation, stop_at_call
from torture.small_job import overrides_of, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_LOOK_EVERY_S = 0.005
_LATEST = 0.9  # of what is left to train: a run that ends before its kill teaches nothing
_EARLY = 0.2  # share of the kills that may come before a run trains; more would try the same few lines again and again


class Torture:
    """One small job, trained once in peace and then under fire.

    Args:
        folder: Everything goes in here.
        steps: Optimizer steps of the run.
        save_steps: Steps between two checkpoints.
        seed: Of when the kills come.
        four_bit: An NF4 base; the reference stack has none on a CPU.
    """

    def __init__(self, folder: Path, *, steps: int, save_steps: int, seed: int, four_bit: bool) -> None:
        """Make the base, the job and the run to compare with."""
        self.folder, self.steps = folder, steps
        self.random = random.Random(seed)  # noqa: S311 - when to kill, no secret
        self.report = Report(save_steps)
        self.overrides = overrides_of(folder, steps=steps, save_steps=save_steps, four_bit=four_bit)
        self.job = prepare(self.overrides)
        started = time.monotonic()
        code = self.attempt("peace", self._measure, lambda: count_file_operations(folder / "peace"))
        self.seconds = time.monotonic() - started
        if code != 0:
            log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"the run nobody touched failed:\n{log[-2000:]}")
        self.expected = outcome_of(folder / "peace")
        self._operations = int((folder / "peace.operations").read_text(encoding="utf-8"))
        self.attempt("counted", in_child=lambda: count_calls(folder / "counted.calls"))
        self._calls = int((folder / "counted.calls").read_text(encoding="utf-8"))

    def _measure(self, child: int) -> None:
        """Measure loading and training in CPU seconds, which other work on the machine does not stretch."""
        process, metrics = psutil.Process(child), self.folder / "peace" / METRICS
        self._loading = self._training = 0.0
        while not _has_ended(child):
            seconds = _cpu_seconds(process)
            if metrics.exists():
                self._training = seconds - self._loading
            else:
                self._loading = seconds
            time.sleep(_LOOK_EVERY_S)

    def attempt(
        self,
        name: str,
        arrange: Callable[[int], None] | None = None,
        in_child: Callable[[], None] | None = None,
        changes: dict[str, Any] | None = None,
    ) -> int:
        """Fork, begin the job in a folder or go on with it, and return the exit code, negative for a signal.

        Args:
            name: Of the run's folder.
            arrange: Called in the parent with the child's process id.
            in_child: Called in the child before the run.
            changes: Overrides of the job's configuration.
        """
        end_threads()
        child = os.fork()
        if child == 0:
            code = 70
            try:
                # Where this went wrong is told as a child's every word is, in the log.
                sys.stdout = sys.stderr = log = (self.folder / "log.txt").open("a", encoding="utf-8")
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # at a terminal a second Ctrl-C is a person's
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                for number in SIGNALS:  # what does not listen yet is ended by them: as an exception they are not tried
                    signal.signal(number, signal.SIG_DFL)
                if in_child is not None:
                    in_child()
                code = self._train(name, changes or {})
            except BaseException:  # noqa: BLE001 - the child must never return into the parent's code
                import traceback

                traceback.print_exc()
            finally:
                try:
                    sys.stdout.flush()
                finally:
                    os._exit(code)
        if arrange is not None:
            arrange(child)
        return exit_code_of(child)

    def is_as_expected(self, name: str) -> bool:
        """Tell whether a finished run is, byte for byte, what the one nobody touched is."""
        return outcome_of(self.folder / name) == self.expected

    def _train(self, name: str, changes: dict[str, Any]) -> int:
        output = self.folder / name
        overrides = {**self.overrides, "training.output_dir": str(output), **changes}
        resolved = resolve(self.job.resolved.path, overrides)
        start = decide("auto", output, self.job.identity, ())
        if any(finding.severity == "error" for finding in start.findings):
            raise RuntimeError(f"not resumed: {start.findings}")
        if start.is_finished:
            return 0
        return run(replace(self.job, resolved=resolved, start=start), ["torture"])

    def storm(self, kills: Mapping[str, int], per_run: int) -> Iterator[str]:
        """Kill runs, ``per_run`` times each at most, until there were so many kills of each kind.

        Yields:
            Each run's name, once it has come to its end.
        """
        number, done = 0, self.report.kills
        while left := {how: wanted - done[how] for how, wanted in kills.items() if wanted > done[how]}:
            how = max(left, key=lambda how: left[how] / kills[how])
            name = f"{number}-{how}"
            self.strike(min(per_run, left[how]), how, name)
            number += 1
            yield name

    def strike(self, kills: int, how: str, name: str) -> None:
        """Kill one run up to ``kills`` times, let it finish, and compare.

        Args:
            kills: How often.
            how: ``time`` (SIGKILL at a random moment), ``file`` (SIGKILL at a random file operation in the run's
                folder), ``term`` (SIGTERM at a random moment), ``burst`` (several of the signals that stop a run, from
                a random moment on) or ``call`` (SIGTERM at a random call of Python's while the run cannot save yet).
            name: Of its folder.
        """
        output, code = self.folder / name, -1
        for _ in range(kills):
            before = Saved.of(output)
            log = self.folder / "log.txt"
            told = log.stat().st_size
            code = self._kill_once(how, name, before.newest)
            if code == 0:
                break
            if self.report.judge(output, how, code, before):
                self.report.faults[-1] += f"; it said:\n{_last_lines(log, told)}"
        if code != 0:
            code = self.attempt(name)
        if code != 0:
            self.report.faults.append(f"{name}: could not be brought to its end (exit code {code})")
        elif not self.is_as_expected(name):
            mine = outcome_of(output)
            parts = ", ".join(part for part, value in self.expected.items() if mine[part] != value)
            self.report.faults.append(f"{name}: ended otherwise than the run nobody touched in {parts}")
        else:
            self.report.finished += 1

    def _kill_once(self, how: str, name: str, saved_step: int) -> int:
        early, rest = self.random.random() < _EARLY, 1 - saved_step / self.steps
        if how == "file":
            # Of the operations while it trains; a resumed run has only the rest of them before it.
            countdown = self.random.randint(1, max(1, round(self._operations * rest)))
            output = self.folder / name
            return self.attempt(name, None, lambda: die_at_file_operation(output, countdown, from_start=early))
        if how == "call":
            # Evenly over the orders of magnitude: as many in the few calls that begin it as in the many that load.
            number = round(self._calls ** self.random.random())
            return self.attempt(name, None, lambda: stop_at_call(number))
        moment = self._loading + self.random.uniform(0, _LATEST * rest) * self._training
        if early:
            moment = self.random.uniform(0, self._loading)
        # The CPU's clock ticks in hundredths, and stands still while a file is flushed.
        pause = self.random.uniform(0, 0.02)
        numbers = [signal.SIGTERM if how == "term" else signal.SIGKILL]
        if how == "burst":
            numbers = self.random.choices(SIGNALS, k=self.random.randint(2, 6))
        # All at once, as a launcher and a batch system together; or one after the other, as a notice and then the end.
        gap = self.random.choice((0.0, 0.02, 0.2))

        def later(child: int) -> None:
            process = psutil.Process(child)
            while _cpu_seconds(process) < moment:
                if _has_ended(child):
                    return
                time.sleep(_LOOK_EVERY_S)
            time.sleep(pause)
            for number in numbers:
                os.kill(child, number)
                time.sleep(gap if how == "burst" else 0)

        return self.attempt(name, later)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _last_lines(log: Path, since: int, most: int = 2000) -> str:
    with log.open("rb") as file:
        file.seek(max(since, log.stat().st_size - most))
        return file.read().decode(errors="replace")


def _has_ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
