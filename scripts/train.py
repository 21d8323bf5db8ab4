"""Train: check everything, then fine-tune the base model with QLoRA and save the adapter with its receipt.

Run as:
    python scripts/train.py                                          the configuration that fits this machine
    python scripts/train.py configs/training_config_demo.yaml
    python scripts/train.py configs/training_config_h100.yaml training.learning_rate=1e-4 training.run_name=lower-rate
    python scripts/train.py configs/training_config_m4.yaml --require m4

Writes outputs/<run_name>/: run.json (the receipt), metrics.jsonl, checkpoints/ and, at the end, adapter/.
Exit codes: 0 trained, 1 a check failed or the run did, 2 wrong use, 130 and 143 stopped by Ctrl-C or SIGTERM after
saving a checkpoint.
"""

from __future__ import annotations

from kit.interpreter import use_project_python

if __name__ == "__main__":
    use_project_python()

import argparse
import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.config.error import ConfigError
from kit.config.resolve import Resolved, resolve
from kit.console import say
from kit.environment.checks import environment_findings
from kit.environment.probe import probe as probe_environment
from kit.findings import Finding, error, has_errors, render, summary
from kit.machine.platforms import PLATFORMS
from kit.preflight import Preflight, check_run, run_directory_findings
from kit.quiet_libraries import quiet_imports
from kit.run.failures import explain
from kit.run.plan import TrainingPlan, make_plan
from kit.run.receipt import Receipt, describe_before, describe_data
from kit.stack import Stack, installed_stack
from kit.verdict import Target, add_config_arguments, target_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Job:
    """Everything a run needs, checked."""

    resolved: Resolved
    target: Target
    stack: Stack
    preflight: Preflight


def main(argv: Sequence[str] | None = None) -> int:
    """Check, train, save; return the exit code."""
    options = _parser().parse_intermixed_args(argv)
    target = target_of(options)
    try:
        resolved = resolve(target.config, target.overrides)
    except ConfigError as exc:
        render(exc.findings, sys.stderr)
        return exc.exit_code
    job, findings = _check(resolved, target, require=options.require, overwrite=options.overwrite)
    render([finding for finding in findings if finding.severity in {"warning", "error"}], sys.stderr)
    if has_errors(findings):
        say(f"not started: {summary(findings)}. Mend the errors above, then run the same command again.", "red", "bold")
        return 1
    return _run(job, list(argv if argv is not None else sys.argv[1:]), overwrite=options.overwrite)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_arguments(parser)
    parser.add_argument("--require", choices=PLATFORMS, help="refuse to run on any other platform")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run of the same name")
    return parser


def _check(resolved: Resolved, target: Target, *, require: str | None, overwrite: bool) -> tuple[Job, list[Finding]]:
    stack, judgement, settings = installed_stack(), target.judgement, resolved.settings
    say(f"{target.config} on {judgement.platform}: {judgement.reason}; {stack.name} stack", "bold")
    findings = run_directory_findings(settings, overwrite=overwrite)
    if require and judgement.platform != require:
        findings.append(
            error(
                "platform.required",
                f"this run is for {require}, and this machine is {judgement.platform}: {judgement.reason}",
                f"run it on such a machine, or here with {judgement.recommended_config}",
            )
        )
    findings += environment_findings(probe_environment(settings, work=False), settings, judgement.platform)
    # The hub is asked only for a run that can begin.
    preflight = check_run(resolved, judgement, target.machine, stack, download=not has_errors(findings))
    return Job(resolved, target, stack, preflight), findings + preflight.findings


def _run(job: Job, argv: list[str], *, overwrite: bool) -> int:
    settings, files = job.resolved.settings, [file for file in (job.preflight.train, job.preflight.val) if file]
    plan = make_plan(settings, files[0].rows, files[1].rows if len(files) > 1 else ())
    if overwrite:
        _remove_earlier_run(settings.run_directory)
    receipt = Receipt(
        settings.run_directory,
        **describe_before(argv, settings, job.resolved.origins, job.target.machine, job.stack),
        platform=job.target.judgement.platform,
        data=describe_data(files),
        steps=plan.steps,
    )
    say(
        f"{len(plan.rows):,} rows, {plan.tokens[-1]:,} tokens in {plan.steps:,} steps of {plan.batch_size} rows"
        f" -> {settings.run_directory}"
    )
    try:
        return _train(job, plan, receipt)
    except KeyboardInterrupt:
        receipt.finish("interrupted")
        say("stopped before the first step; nothing was trained", "yellow")
        return 130
    except Exception as exc:
        finding = explain(exc)
        receipt.finish("failed", error=f"{type(exc).__name__}: {exc}")
        if finding is None:
            raise
        render([finding], sys.stderr)
        return 1


def _train(job: Job, plan: TrainingPlan, receipt: Receipt) -> int:
    # The kit trains on one GPU, CUDA's first; transformers would spread the batch over all it sees.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    # Imported here: everything that can be found wrong without torch was found before.
    with quiet_imports():
        from kit.run.watch import StopRequest, TrainingWatch
        from kit.stack.model import attach_adapter, load_base_model
        from kit.stack.session import adapter_sha256, peak_memory_bytes, prepare_logging, save_run
        from kit.stack.trainer import build_trainer

    settings, platform = job.resolved.settings, job.target.judgement.platform
    prepare_logging(settings)
    base = load_base_model(settings, platform)
    model = attach_adapter(base, settings)
    stop = StopRequest()
    watch = TrainingWatch(plan, settings.run_directory / "metrics.jsonl", stop)
    trainer = build_trainer(model, settings, plan, platform, [watch])
    watch.trainer = trainer
    receipt.update(
        state="training",
        attention=job.stack.resolve_attention(settings.model.attn_implementation, platform),
        adapter_init_sha256=adapter_sha256(model),
    )
    with stop.listening():
        try:
            trainer.train()
        finally:
            watch.close()

    done = trainer.state.global_step
    receipt.update(
        steps_done=done,
        tokens=plan.tokens[done - 1] if done else 0,
        train_loss=watch.last_loss,
        eval_loss=watch.eval_losses[-1][1] if watch.eval_losses else None,
        peak_memory_bytes=peak_memory_bytes(platform),
    )
    if stop.signal is not None:
        receipt.finish("interrupted")
        say(f"stopped at step {done:,} of {plan.steps:,}; the checkpoint is in {settings.run_directory}/checkpoints")
        return stop.exit_code
    left_out = save_run(model, settings, receipt.facts)
    receipt.finish("finished", adapter_sha256=adapter_sha256(model), left_out_of_adapter_config=left_out)
    _report(receipt, settings.run_directory)
    return 0


def _remove_earlier_run(folder: Path) -> None:
    for name in ("checkpoints", "adapter"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("run.json", "metrics.jsonl"):
        (folder / name).unlink(missing_ok=True)


def _report(receipt: Receipt, folder: Path) -> None:
    facts = receipt.facts
    loss = "" if facts["eval_loss"] is None else f", validation loss {facts['eval_loss']:.4f}"
    print(
        f"trained {facts['steps_done']:,} steps in {facts['seconds']:.0f} s: training loss {facts['train_loss']:.4f}"
        f"{loss}, peak memory {facts['peak_memory_bytes'] / 1e9:.2f} GB"
    )
    print(f"adapter: {folder / 'adapter'}   receipt: {receipt.path}")


if __name__ == "__main__":
    raise SystemExit(main())
