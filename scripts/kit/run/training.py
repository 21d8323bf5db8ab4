"""The run itself, once everything is checked: start or go on, train, save, and write down how it went."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.console import say
from kit.data.dataset import file_sha256
from kit.findings import Finding, render, warning
from kit.quiet_libraries import quiet_imports
from kit.run import checkpoints, disk_space
from kit.run.failures import explain
from kit.run.receipt import Receipt, describe_before, describe_data, loss_trace_sha256
from kit.run.resume import Start
from kit.run.stop import StoppedError, StopRequest
from kit.run.watchdog import BadLoss, BadLossError, Watchdog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kit.budget.plan import RunPlan
    from kit.config.resolve import Resolved
    from kit.data.dataset import EncodedFile
    from kit.machine.facts import Machine
    from kit.run.plan import TrainingPlan
    from kit.stack import Stack

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Job:
    """Everything a run needs, checked.

    Attributes:
        resolved: The configuration.
        machine: The machine it runs on.
        platform: Platform name.
        stack: The installed stack.
        files: The training file and, where there is one, the validation file.
        plan: The run, step by step.
        base: The base model's files by hash: see ``describe_base``.
        identity: What a resumed run must have in common: see ``identity_of``.
        start: How it begins.
        predicted: What it will take; None where that is not known.
    """

    resolved: Resolved
    machine: Machine
    platform: str
    stack: Stack
    files: Sequence[EncodedFile]
    plan: TrainingPlan
    base: dict[str, Any]
    identity: dict[str, Any]
    start: Start = field(default_factory=Start)
    predicted: RunPlan | None = None


def run(job: Job, argv: Sequence[str]) -> int:
    """Train a job to its end, to a signal or to a failure; return the exit code."""
    folder = job.resolved.settings.run_directory
    stop = StopRequest()
    receipt: Receipt | None = None
    with stop.listening():
        try:
            receipt = _begin(job, argv)
            return _Training(job, receipt, stop).run()
        except StoppedError:
            if receipt is not None:
                _finish(receipt, "interrupted", signal=stop.signal)
            say("stopped before a step was done; nothing is lost", "yellow")
            return stop.exit_code
        except Exception as exc:
            finding = explain(exc)
            if receipt is not None:
                _finish(receipt, "failed", error=f"{type(exc).__name__}: {exc}")
            if finding is None:
                raise
            render([finding, *_way_on(folder)], sys.stderr)
            return 1


def _begin(job: Job, argv: Sequence[str]) -> Receipt:
    settings, plan, checkpoint = job.resolved.settings, job.plan, job.start.checkpoint
    folder = settings.run_directory
    from_step = checkpoint.step if checkpoint else 0
    _prepare_folder(folder, job.start)
    receipt = Receipt(
        folder,
        earlier=job.start.earlier,
        from_step=from_step,
        **describe_before(argv, settings, job.resolved.origins, job.machine, job.stack),
        platform=job.platform,
        data=describe_data(job.files, settings.training.max_seq_length),
        base_model=job.base,
        predicted=job.predicted.as_mapping() if job.predicted else None,
        identity=job.identity,
        changes_allowed=_changes_allowed(job.start, from_step),
        steps=plan.steps,
        steps_done=from_step,
        # A run that goes on did not see how its adapter began.
        **({"adapter_init_sha256": checkpoint.facts["adapter_init_sha256"]} if checkpoint else {}),
    )
    say(
        f"{len(plan.rows):,} rows, {plan.tokens[-1]:,} tokens in {plan.steps:,} steps of {plan.batch_size} rows"
        f" -> {folder}"
    )
    if checkpoint:
        say(f"going on after step {from_step:,}, from {checkpoint.folder}")
    return receipt


def _changes_allowed(start: Start, step: int) -> list[dict[str, Any]]:
    before = list((start.earlier or {}).get("changes_allowed", [])) if step else []
    now = [{"step": step, "key": key, "was": then, "is": now} for key, (then, now) in start.allowed.items()]
    return before + now


def _prepare_folder(folder: Path, start: Start) -> None:
    """Bring the run's folder to where the run begins: nothing, or exactly what the checkpoint knows."""
    parent = folder / "checkpoints"
    checkpoints.sweep(parent)
    for leftover in folder.glob(".run.json.*"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    if start.checkpoint is None:
        for name in ("checkpoints", "adapter"):
            shutil.rmtree(folder / name, ignore_errors=True)
        # With what was written about it afterwards: see kit.report and scripts/evaluate.py.
        for name in ("run.json", METRICS, "report.html", "report.png", "demo.json", "evaluation.json"):
            (folder / name).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for step, later in checkpoints.folders(parent):
        if step > start.checkpoint.step:
            checkpoints.set_aside(later)
    aside = folder / f".{METRICS}.partial"
    shutil.copyfile(start.checkpoint.folder / METRICS, aside)
    checkpoints.fsync_file(aside)
    aside.replace(folder / METRICS)


def _finish(receipt: Receipt, state: str, **facts: Any) -> None:
    try:
        receipt.finish(state, **facts)
    except OSError as exc:
        say(f"{receipt.path}: cannot be completed ({exc.strerror}); it says what was known before", "yellow")


def _way_on(folder: Path) -> list[Finding]:
    found, _ = checkpoints.newest(folder / "checkpoints")
    if found is None:
        return []
    fix = "once mended, the same command with --resume auto (make: RESUME=auto)"
    return [warning("run.resumable", f"step {found.step:,} is saved and whole", fix, str(found.folder))]


class _Training:
    """One process's part of a run: built, trained, saved."""

    def __init__(self, job: Job, receipt: Receipt, stop: StopRequest) -> None:
        self.job, self.receipt, self.stop = job, receipt, stop
        self.settings, self.plan = job.resolved.settings, job.plan
        self.folder = self.settings.run_directory
        self.saved_step = job.start.checkpoint.step if job.start.checkpoint else 0
        self.last_size = 0
        self.reported: set[str] = set()
        self.trainer: Any = None
        self.watch: Any = None

    def run(self) -> int:
        # The kit trains on one GPU, CUDA's first; transformers would spread the batch over all it sees.
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
        # Imported here: everything that can be found wrong without torch was found before.
        with quiet_imports():
            from kit.run.watch import TrainingWatch
            from kit.stack.model import attach_adapter, load_base_model
            from kit.stack.session import adapter_sha256, prepare_logging
            from kit.stack.state import SavedState
            from kit.stack.trainer import build_trainer

        settings, platform, checkpoint = self.settings, self.job.platform, self.job.start.checkpoint
        prepare_logging(settings)
        base = load_base_model(settings, platform)
        model = attach_adapter(base, settings)
        watchdog = Watchdog(model.config.vocab_size, judges_gradients=not settings.training.fp16)
        self.watch = TrainingWatch(self.plan, self.folder / METRICS, watchdog, self._report_bad_loss)
        resumed = SavedState.read(checkpoint.folder) if checkpoint else None
        self.trainer = build_trainer(model, settings, self.plan, platform, [self.watch], resumed)
        self.watch.trainer = self.trainer
        self.trainer.check_stop = self.stop.check
        self.trainer.save = self.save
        self.receipt.update(state="training", attention=self.job.identity["attention"])
        if checkpoint is None:
            self.receipt.update(adapter_init_sha256=adapter_sha256(model))
        try:
            self._train()
        except StoppedError:
            if self.trainer.state.global_step == 0:
                raise
            self.save()
            self._finish_part("interrupted", signal=self.stop.signal)
            say(
                f"stopped at step {self.trainer.state.global_step:,} of {self.plan.steps:,};"
                f" the checkpoint is in {self.folder}/checkpoints. Go on: the same command with --resume auto"
            )
            return self.stop.exit_code
        finally:
            self.watch.close()
        self._save_adapter(model)
        return 0

    def _train(self) -> None:
        resumed = self.trainer.resumed
        self.stop.has_something_to_save = True
        if resumed is None or resumed.step < self.plan.steps:
            self.trainer.train()
        elif resumed.evaluation_is_due:
            resumed.randomness.restore(self.job.platform)
            self.trainer.evaluate()
        if not self.trainer.resumes_exactly:
            text = "the optimizer did not take back its saved state bit for bit: the rest may differ in the last digits"
            render([warning("resume.inexact", text)], sys.stderr)
            self.receipt.update(resumed_inexactly=True)

    def save(self) -> None:
        """Write a checkpoint of the last finished step, then let go of the oldest."""
        from kit.stack.session import adapter_sha256
        from kit.stack.state import is_finite, save_state

        step = self.trainer.state.global_step
        self.watch.sync()
        if step == self.saved_step:
            return
        if not is_finite(self.trainer.model):
            render([warning("run.not_saved", f"step {step:,} is not saved: the adapter holds NaN")], sys.stderr)
            return

        def fill(folder: Path) -> None:
            save_state(folder, self.trainer, self.trainer.randomness, evaluation_is_due=self.trainer.evaluation_is_due)
            shutil.copyfile(self.folder / METRICS, folder / METRICS)

        disk_space.require(self.folder, self.last_size or disk_space.checkpoint_bytes(self.settings) or 0)
        facts = {
            "identity": self.job.identity,
            "adapter_sha256": adapter_sha256(self.trainer.model),
            "adapter_init_sha256": self.receipt.facts.get("adapter_init_sha256"),
        }
        parent = self.folder / "checkpoints"
        written = checkpoints.write(parent, step, fill, facts)
        self.saved_step, self.last_size = step, written.size_bytes
        checkpoints.prune(parent, self.settings.training.save_total_limit)
        say(f"step {step:>6,}  saved {written.folder}")
        kept = {path.name for _, path in checkpoints.folders(parent)}
        listed = [entry for entry in self.receipt.facts.get("checkpoints", []) if entry["name"] in kept]
        entry = {"name": written.folder.name, "step": step, "bytes": written.size_bytes}
        listed.append({**entry, "manifest_sha256": written.manifest_sha256, "files": written.files})
        self._update(checkpoints=listed)

    def _update(self, **facts: Any) -> None:
        from kit.stack.session import peak_memory_bytes

        done = self.trainer.state.global_step
        self.receipt.update(
            steps_done=done,
            tokens=self.plan.tokens[done - 1] if done else 0,
            train_loss=self.watch.last_loss,
            eval_loss=self.watch.eval_losses[-1][1] if self.watch.eval_losses else None,
            peak_memory_bytes=peak_memory_bytes(self.job.platform),
            **facts,
        )

    def _finish_part(self, state: str, **facts: Any) -> None:
        metrics = self.folder / METRICS
        self._update(loss_trace_sha256=loss_trace_sha256(metrics), metrics_sha256=file_sha256(metrics))
        _finish(self.receipt, state, **facts)

    def _save_adapter(self, model: Any) -> None:
        from kit.stack.session import adapter_sha256, save_run
        from kit.stack.state import is_finite

        if not is_finite(model):
            found = BadLoss("not_finite", self.plan.steps, "the adapter holds NaN at the end and is not saved")
            raise BadLossError(found, "see bad_losses in run.json")
        self._update()
        left_out, hashes = save_run(model, self.settings, self.receipt.facts)
        self._finish_part(
            "finished",
            adapter_sha256=adapter_sha256(model),
            adapter_files=hashes,
            left_out_of_adapter_config=left_out,
        )
        facts = self.receipt.facts
        loss = "" if facts["eval_loss"] is None else f", validation loss {facts['eval_loss']:.4f}"
        train_loss = "not measured" if facts["train_loss"] is None else f"{facts['train_loss']:.4f}"
        print(
            f"trained {facts['steps_done']:,} steps in {facts['seconds']:.0f} s: training loss {train_loss}"
            f"{loss}, peak memory {facts['peak_memory_bytes'] / 1e9:.2f} GB"
        )
        print(f"adapter: {self.folder / 'adapter'}   receipt: {self.receipt.path}")

    def _report_bad_loss(self, found: BadLoss) -> None:
        if found.kind in self.reported:  # once is a warning, a thousand times is noise
            return
        self.reported.add(found.kind)
        first = (found.step - 1) * self.plan.batch_size
        rows = [self.plan.rows[index] for index in self.plan.order[first : first + self.plan.batch_size] if index >= 0]
        places = [f"{self.job.files[0].path}:{row.line}" for row in rows]
        entry = {"kind": found.kind, "step": found.step, "message": found.message, "rows": places}
        self.receipt.update(bad_losses=[*self.receipt.facts.get("bad_losses", []), entry])
        exc = BadLossError(found, f"{', '.join(places[:4])}{', …' if len(places) > 4 else ''}")  # noqa: PLR2004 - a line
        if self.settings.training.on_bad_loss == "stop":
            raise exc
        render([warning("run.bad_loss", str(exc), "training.on_bad_loss=stop would end the run here")], sys.stderr)
