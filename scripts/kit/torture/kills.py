"""Kill a real run again and again, resume it each time, and compare its end with that of a run nobody touched.

The parent imports the libraries and prepares the job once; every attempt is a forked child, so that an attempt costs a
second and not fifteen. After each kill the folder is judged as a stranger would find it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kit.config.resolve import resolve
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.dataset import load_file
from kit.interpreter import PROJECT_ROOT
from kit.machine.platforms import judge
from kit.machine.probe import probe
from kit.model.weights import describe_base
from kit.quiet_libraries import quiet_imports
from kit.run import checkpoints
from kit.run.job import METRICS, Job
from kit.run.plan import make_plan
from kit.run.receipt import read_receipt
from kit.run.resume import decide, identity_of
from kit.run.training import run
from kit.stack import installed_stack
from kit.torture.forked import end_threads, exit_code_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_FILE_EVENTS = frozenset({"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.copyfile"})


@dataclass
class Report:
    """What a torture came to.

    Attributes:
        kills: Attempts that were killed, by how.
        kills_at: Of those, how many ended before the first step, in training and while something was written.
        finished: Runs that came to their end and equal the one nobody touched.
        faults: What must not happen, one sentence each.
        most_steps_lost: The most finished steps that had to be trained again after one kill.
    """

    kills: Counter[str] = field(default_factory=Counter)
    kills_at: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    faults: list[str] = field(default_factory=list)
    most_steps_lost: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {**vars(self), "kills": dict(self.kills), "kills_at": dict(self.kills_at)}


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
        os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
        self.folder, self.save_steps = folder, save_steps
        self.random = random.Random(seed)  # noqa: S311 - when to kill, no secret
        self.report = Report()
        with quiet_imports():
            import torch

            import kit.stack.session
            import kit.stack.trainer  # noqa: F401 - imported once, for every child
            from kit.demo.base import byte_tokenizer, new_model, save_base

            torch.set_num_threads(1)  # threads do not survive a fork
            base = folder / "base"
            tokenizer = byte_tokenizer()
            save_base(new_model(tokenizer.get_vocab_size(), seed=0), tokenizer, base)
        self.overrides = {
            "model.model_name_or_path": str(base),
            "quantization.load_in_4bit": four_bit,
            "data.train_file": str(PROJECT_ROOT / "data/sample/train.jsonl"),
            "data.val_file": str(_few_rows(folder)),
            "training.max_steps": steps,
            "training.per_device_train_batch_size": 2,
            "training.gradient_accumulation_steps": 2,
            "training.save_steps": save_steps,
            "training.eval_steps": save_steps + 1,
            "training.save_total_limit": 2,
            "training.logging_steps": 3,
        }
        self.job = self._job()
        started = time.monotonic()
        code = self.attempt("peace")
        self.seconds = time.monotonic() - started
        if code != 0:
            log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"the run nobody touched failed:\n{log[-2000:]}")
        self.expected = _outcome(folder / "peace")

    def _job(self) -> Job:
        resolved = resolve(PROJECT_ROOT / "configs/training_config_demo.yaml", self.overrides)
        settings, stack, machine = resolved.settings, installed_stack(), probe()
        tokenizer = ChatTokenizer.load(settings.model.model_name_or_path)
        names = [name for name in (settings.data.train_file, settings.data.val_file) if name]
        from pathlib import Path

        files = [load_file(Path(name), tokenizer, settings.training.max_seq_length) for name in names]
        plan = make_plan(settings, files[0].rows, files[1].rows)
        base = describe_base(settings.model.model_name_or_path, None)
        platform = judge(machine).platform
        identity = identity_of(settings, plan, stack, platform, base)
        return Job(resolved, machine, platform, stack, files, plan, base, identity)

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
                with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
                    os.dup2(log.fileno(), 1)
                    os.dup2(log.fileno(), 2)
                    sys.stdout = sys.stderr = log
                    if in_child is not None:
                        in_child()
                    code = self._train(name, changes or {})
                    sys.stdout.flush()
                    sys.stderr.flush()
            except BaseException:  # noqa: BLE001 - the child must never return into the parent's code
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        if arrange is not None:
            arrange(child)
        return exit_code_of(child)

    def is_as_expected(self, name: str) -> bool:
        """Tell whether a finished run is, byte for byte, what the one nobody touched is."""
        return _outcome(self.folder / name) == self.expected

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

    def strike(self, kills: int, how: str, name: str) -> None:
        """Kill one run up to ``kills`` times, let it finish, and compare.

        Args:
            kills: How often.
            how: ``time`` (SIGKILL at a random moment), ``file`` (SIGKILL at a random file operation in the run's
                folder) or ``term`` (SIGTERM at a random moment).
            name: Of its folder.
        """
        output, code = self.folder / name, -1
        for _ in range(kills):
            safe = self._newest(output)
            done_before = _steps_done(output)
            code = self._kill_once(how, name)
            if code == 0:
                break
            self.report.kills[how] += 1
            self._judge(output, how, code, safe, done_before)
        if code != 0:
            code = self.attempt(name)
        if code != 0:
            self.report.faults.append(f"{name}: could not be brought to its end (exit code {code})")
        elif not self.is_as_expected(name):
            mine = _outcome(output)
            parts = ", ".join(part for part, value in self.expected.items() if mine[part] != value)
            self.report.faults.append(f"{name}: ended otherwise than the run nobody touched in {parts}")
        else:
            self.report.finished += 1

    def _kill_once(self, how: str, name: str) -> int:
        if how == "file":
            countdown = self.random.randrange(1, 160)
            return self.attempt(name, None, lambda: _die_at_file_operation(self.folder / name, countdown))
        delay = self.random.uniform(0.3, 1.0) * self.seconds
        number = signal.SIGTERM if how == "term" else signal.SIGKILL

        def later(child: int) -> None:
            deadline = time.monotonic() + delay
            while time.monotonic() < deadline:
                if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    return
                time.sleep(0.002)
            os.kill(child, number)

        return self.attempt(name, later)

    def _newest(self, output: Path) -> int:
        found, _ = checkpoints.newest(output / "checkpoints")
        return found.step if found else 0

    def _judge(self, output: Path, how: str, code: int, safe: int, done_before: int) -> None:
        """Look at what a killed attempt left."""
        found, damaged = checkpoints.newest(output / "checkpoints")
        newest, done = (found.step if found else 0), _steps_done(output)
        self.report.faults += [f"{output.name}: {finding.where} {finding.message}" for finding in damaged]
        if newest < safe:
            self.report.faults.append(f"{output.name}: step {safe} was saved and the newest is {newest}")
        if output.exists() and (output / "run.json").exists() and read_receipt(output) is None:
            self.report.faults.append(f"{output.name}: run.json cannot be read")
        if how == "term":
            if code not in {143, -signal.SIGTERM}:
                self.report.faults.append(f"{output.name}: SIGTERM ended in exit code {code}")
            if code == 143 and done != newest:  # noqa: PLR2004 - the documented code
                self.report.faults.append(f"{output.name}: SIGTERM at step {done} left checkpoint {newest}")
        elif code != -signal.SIGKILL:
            self.report.faults.append(f"{output.name}: an attempt ended by itself with exit code {code}")
        self.report.most_steps_lost = max(self.report.most_steps_lost, done - newest)
        # A loss is read when it is logged: a few finished steps may not be in the file yet.
        if done - newest > self.save_steps:
            self.report.faults.append(f"{output.name}: {done - newest} steps lost, more than since the last save")
        writing = [*output.glob(".*.partial"), *(output / "checkpoints").glob(".checkpoint-*")]
        moment = "writing" if writing else "training" if done > done_before else "starting"
        self.report.kills_at[moment] += 1


def _die_at_file_operation(output: Path, countdown: int) -> None:
    left = countdown

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in _FILE_EVENTS and str(output) in str(arguments[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _few_rows(folder: Path) -> Path:
    path = folder / "val.jsonl"
    rows = (PROJECT_ROOT / "data/sample/val.jsonl").read_text(encoding="utf-8").splitlines()[:6]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def _steps_done(output: Path) -> int:
    """Count the steps in ``metrics.jsonl``; a last line that was cut off by a kill does not count."""
    try:
        lines = (output / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)
    except OSError:
        return 0
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def _outcome(output: Path) -> dict[str, Any]:
    """Everything that must be the same at the end, byte by byte or number by number."""
    receipt = read_receipt(output) or {}
    metrics = [json.loads(line) for line in (output / METRICS).read_text(encoding="utf-8").splitlines()]
    for line in metrics:
        line.pop("seconds", None)
        line.pop("memory_bytes", None)
    last = output / "checkpoints" / f"checkpoint-{receipt.get('steps')}"
    files = [output / "adapter/adapter_model.safetensors", last / "optimizer.safetensors", last / "state.json"]
    keys = ("state", "steps_done", "tokens", "train_loss", "eval_loss", "adapter_sha256", "adapter_init_sha256")
    return {
        "metrics": metrics,
        "receipt": {key: receipt.get(key) for key in keys},
        "files": [path.read_bytes() for path in files],
        "left": sorted(path.name for path in output.iterdir()),
    }
