"""One process's session of a run: build the model, train and save it, to the end, a signal or a failure."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kit.cli.console import say
from kit.cli.findings import render, warning
from kit.cli.quiet_libraries import quiet_imports
from kit.cli.screen import one_line
from kit.data.batch_order import FILLER
from kit.files.digest import file_sha256
from kit.machine.one_device import use_judged_device
from kit.plan.needs import checkpoint_bytes
from kit.run_directory import checkpoints, disk_space
from kit.run_directory.names import CHECKPOINTS, METRICS
from kit.run_directory.receipt import loss_trace_sha256
from kit.supervise.stall import StallWatch
from kit.supervise.stall_report import StallReport, end_at_once
from kit.supervise.stop import StoppedError
from kit.supervise.watchdog import BadLoss, BadLossError, Watchdog
from kit.train.compute_changes import note_changes

if TYPE_CHECKING:
    from pathlib import Path

    from kit.run_directory.receipt import Receipt
    from kit.supervise.stop import StopRequest
    from kit.track.wandb_tracker import WandbTracker
    from kit.train.job import TrainingJob
    from kit.train.rehearsal import Rehearsal


def finish(receipt: Receipt, state: str, **facts: Any) -> None:
    """Complete a receipt; a disk that refuses only warns, since the run ends anyway."""
    try:
        receipt.finish(state, **facts)
    except OSError as exc:
        say(f"{receipt.path}: cannot be updated ({exc.strerror}); it keeps its last contents", "yellow")


class TrainingSession:
    """One process's training session."""

    def __init__(self, job: TrainingJob, receipt: Receipt, stop: StopRequest, curves: WandbTracker) -> None:
        """Prepare the session."""
        self.job, self.receipt, self.stop, self.curves = job, receipt, stop, curves
        self.settings, self.plan = job.resolved.settings, job.plan
        self.folder = self.settings.run_directory
        self.saved_step = job.start.checkpoint.step if job.start.checkpoint else 0
        self.last_size = 0
        self.reported: set[str] = set()
        self.trainer: Any = None
        self.watch: Any = None
        self.stalls = self._watch_for_stalls()

    def run(self) -> int:
        """Train to the end or to a signal; return the exit code.

        Raises:
            StoppedError: A signal came before there was anything to save.
        """
        # The kit trains on one GPU; transformers would spread the batch over all it sees.
        use_judged_device()
        # Imported here: everything that can be found wrong without torch was found before.
        with quiet_imports():
            from kit.modeling.compute import describe_compute
            from kit.modeling.model import attach_adapter, load_base_model
            from kit.train.callback import TrainingCallback
            from kit.train.saving import MemoryMeter, adapter_sha256
            from kit.train.state import SavedState
            from kit.train.trainer import build_trainer

        settings, platform, checkpoint = self.settings, self.job.platform, self.job.start.checkpoint
        memory = MemoryMeter(platform)
        base = load_base_model(settings, platform)
        model = attach_adapter(base, settings)
        watchdog = Watchdog(model.config.vocab_size, judges_gradients=not settings.training.fp16)
        self.watch = TrainingCallback(self.plan, self.folder / METRICS, watchdog, self._report_bad_loss, memory)
        resumed = SavedState.read(checkpoint.folder, checkpoint.step) if checkpoint else None
        self.trainer = build_trainer(model, settings, self.plan, platform, [self.watch], resumed)
        self.watch.trainer = self.trainer
        self.watch.at_each_line = self.curves.listen
        self.trainer.check_stop = self._between_micro_batches
        self.trainer.save = self.save
        self.trainer.on_rehearsal = self._note_rehearsal
        attention, before = self.job.identity["attention"], self.receipt.facts.get("compute")
        compute = {**describe_compute(platform), "cpu_model": self.job.machine.cpu_model}
        self.receipt.update(state="training", attention=attention, compute=compute)
        if checkpoint is None:
            self.receipt.update(adapter_init_sha256=adapter_sha256(model))
        else:
            then = checkpoint.facts.get("compute", before)
            note_changes(self.receipt, then, compute, platform, checkpoint.step)
        with self.stalls:
            try:
                self._train()
            except StoppedError:
                if self.trainer.state.global_step == 0:
                    raise
                self.save()
                self._finish_session("interrupted", signal=self.stop.signal)
                say(
                    f"stopped by {self.stop.name} at step {self.trainer.state.global_step:,} of {self.plan.steps:,}; "
                    f"{self._resume_point()}"
                )
                return self.stop.exit_code
            finally:
                self.watch.close()
            self.stop.answer = "saving the adapter; the run ends after that"
            with self.stalls.during("saving the adapter"):
                self._save_adapter(model)
        return 0

    def _resume_point(self) -> str:
        """Return what a stopped run resumes from: not its last step if that could not be saved."""
        way = "the same command with --resume auto"
        if self.saved_step == self.trainer.state.global_step:
            return f"checkpoint in {self.folder}/checkpoints. Resume: {way}"
        if self.saved_step:
            return f"last checkpoint: step {self.saved_step:,}. Resume: {way}"
        return f"no checkpoint. Restart: {way}"

    def _watch_for_stalls(self) -> StallWatch:
        training = self.settings.training
        report = StallReport(self.folder, self.receipt, training.on_stall, self._rows_under_way)
        end = end_at_once if training.on_stall == "stop" else None
        return StallWatch(training.stall_timeout, report, self._activity, end)

    def _between_micro_batches(self) -> None:
        self.stalls.beat(None if self.trainer.evaluation_is_due else self.trainer.state.global_step)
        self.stop.check()

    def _activity(self) -> str:
        step = self.trainer.state.global_step
        return f"the evaluation after step {step:,}" if self.trainer.evaluation_is_due else f"step {step + 1:,}"

    def _rows_under_way(self) -> list[str]:
        return self._places(self.trainer.state.global_step + 1)

    def _places(self, step: int) -> list[str]:
        first = (step - 1) * self.plan.batch_size
        rows = [index for index in self.plan.order[first : first + self.plan.batch_size] if index != FILLER]
        return [f"{self.job.files[0].path}:{self.plan.rows.lines[index]}" for index in rows]

    def _note_rehearsal(self, rehearsal: Rehearsal) -> None:
        self.receipt.update(rehearsal=asdict(rehearsal))
        planned = self.job.predicted
        beside = f", {planned.peak.allocated_bytes / 1e9:.2f} GB planned for a whole step" if planned else ""
        say(
            f"rehearsal: the largest micro-batch, {rehearsal.rows} x {rehearsal.length:,} tokens, fits: "
            f"{rehearsal.memory_bytes / 1e9:.2f} GB{beside}"
        )

    def _train(self) -> None:
        resumed = self.trainer.resumed
        self.stop.defer_signals()
        if resumed is None or resumed.step < self.plan.steps:
            self.trainer.train()
        elif resumed.evaluation_is_due:
            resumed.randomness.restore(self.job.platform)
            self.trainer.evaluate()
            self._save_evaluated()
        if not self.trainer.resumes_exactly:
            text = "the optimizer did not restore its state bit for bit; the last digits may differ from here on"
            render([warning("resume.inexact", text)], sys.stderr)
            self.receipt.update(resumed_inexactly=True)

    def _save_evaluated(self) -> None:
        """Write the last checkpoint again after its evaluation, as an uninterrupted run has it."""
        from kit.train.state import mark_evaluated

        old = self.job.start.checkpoint
        if old is None:
            return
        self.watch.sync()

        def fill(folder: Path) -> None:
            for name in old.files:
                shutil.copyfile(old.folder / name, folder / name)
            mark_evaluated(folder, self.job.platform)
            shutil.copyfile(self.folder / METRICS, folder / METRICS)

        disk_space.require(self.folder, old.size_bytes)
        self._record_checkpoint(checkpoints.write(self.folder / CHECKPOINTS, old.step, fill, old.facts))

    def save(self) -> None:
        """Write a checkpoint of the last finished step, then delete the oldest."""
        with self.stalls.during(f"saving step {self.trainer.state.global_step:,}"):
            self._save()

    def _save(self) -> None:
        from kit.train.saving import adapter_sha256
        from kit.train.state import is_finite, save_state

        step = self.trainer.state.global_step
        self.watch.sync()
        if step == self.saved_step:
            return
        if not is_finite(self.trainer.model):
            render([warning("run.not_saved", f"step {step:,} not saved: the adapter contains NaN")], sys.stderr)
            return

        def fill(folder: Path) -> None:
            save_state(folder, self.trainer, self.trainer.randomness, evaluation_is_due=self.trainer.evaluation_is_due)
            shutil.copyfile(self.folder / METRICS, folder / METRICS)

        planned_run = self.job.planned_run
        planned = checkpoint_bytes(planned_run.shape, self.settings) if planned_run else 0
        disk_space.require(self.folder, self.last_size or planned)
        facts = {
            "identity": self.job.identity,
            "adapter_sha256": adapter_sha256(self.trainer.model),
            "adapter_init_sha256": self.receipt.facts.get("adapter_init_sha256"),
            "compute": self.receipt.facts["compute"],
        }
        self._record_checkpoint(checkpoints.write(self.folder / CHECKPOINTS, step, fill, facts))

    def _record_checkpoint(self, written: checkpoints.Checkpoint) -> None:
        """Name a saved checkpoint in the receipt and delete the oldest."""
        parent, step = written.folder.parent, written.step
        self.saved_step, self.last_size = step, written.size_bytes
        checkpoints.prune(parent, self.settings.training.save_total_limit, newest=step)
        say(f"step {step:>6,}  saved {written.folder}")
        kept = {path.name for _, path in checkpoints.folders(parent)}
        before = self.receipt.facts.get("checkpoints", [])
        listed = [entry for entry in before if entry["name"] in kept - {written.folder.name}]
        entry = {"name": written.folder.name, "step": step, "bytes": written.size_bytes}
        listed.append({**entry, "manifest_sha256": written.manifest_sha256, "files": written.files})
        self._update(checkpoints=listed)

    def _update(self, **facts: Any) -> None:
        done = self.trainer.state.global_step
        self.receipt.update(
            steps_done=done,
            tokens=self.plan.tokens[done - 1] if done else 0,
            train_loss=self.watch.last_loss,
            eval_loss=self.watch.eval_losses[-1][1] if self.watch.eval_losses else None,
            peak_memory_bytes=self.watch.memory.peak(),
            **facts,
        )

    def _finish_session(self, state: str, **facts: Any) -> None:
        metrics = self.folder / METRICS
        self._update(loss_trace_sha256=loss_trace_sha256(metrics), metrics_sha256=file_sha256(metrics))
        finish(self.receipt, state, **facts)

    def _save_adapter(self, model: Any) -> None:
        from kit.train.saving import adapter_sha256, save_run
        from kit.train.state import is_finite

        if not is_finite(model):
            found = BadLoss("not_finite", self.plan.steps, "the adapter contains NaN at the end and is not saved")
            raise BadLossError(found, "see bad_losses in run.json")
        self._update()
        left_out, hashes = save_run(model, self.settings, self.receipt.facts)
        self._finish_session(
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
        print(one_line(f"adapter: {self.folder / 'adapter'}   receipt: {self.receipt.path}"))

    def _report_bad_loss(self, found: BadLoss) -> None:
        if found.kind in self.reported:  # once is a warning, a thousand times is noise
            return
        self.reported.add(found.kind)
        places = self._places(found.step)
        entry = {"kind": found.kind, "step": found.step, "message": found.message, "rows": places}
        before = [known for known in self.receipt.facts.get("bad_losses", []) if known != entry]  # of a step done again
        self.receipt.update(bad_losses=[*before, entry])
        exc = BadLossError(found, f"{', '.join(places[:4])}{', …' if len(places) > 4 else ''}")  # noqa: PLR2004 - a line
        if self.settings.training.on_bad_loss == "stop":
            raise exc
        render([warning("run.bad_loss", str(exc), "set training.on_bad_loss=stop to end the run here")], sys.stderr)
