"""Rules across fields and platforms: pure functions over one ``Situation``, each returning findings; and one plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.checks import adapter, device, duration, files, memory, precision, reporting, schedule
from kit.checks import performance as levers
from kit.checks.context import Situation
from kit.cli.findings import Finding, ok, run_check, skipped
from kit.plan.alternatives import Question, question_of
from kit.plan.run_plan import device_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.config.resolve import Resolved
    from kit.data.token_rows import TokenRows
    from kit.machine.facts import Machine
    from kit.machine.platforms import Judgement
    from kit.stacks.stack import Stack

RULES: tuple[Callable[[Situation], list[Finding]], ...] = (
    precision.mixed_precision,
    precision.compute_dtype,
    precision.float16_device,
    precision.bfloat16_device,
    device.optimizer,
    device.flash_attention,
    device.attention_of_stack,
    device.four_bit,
    device.idle_quantization,
    device.cache_clearing,
    device.keys_without_effect,
    levers.partial_checkpointing,
    levers.padding_free,
    levers.torch_compile,
    levers.liger_kernel,
    adapter.scaling,
    adapter.dropout,
    adapter.learning_rate,
    schedule.saving_and_evaluating,
    schedule.length_of_run,
    schedule.warmup,
    reporting.wandb,
    reporting.idle_wandb,
    memory.row_length,
    files.model_path,
    files.data_files,
)


def check(resolved: Resolved, judgement: Judgement, machine: Machine, stack: Stack) -> list[Finding]:
    """Run every rule over a configuration, a judged machine and a stack, and plan it with rows of full length."""
    run = Situation(resolved, machine, judgement, stack)
    return [*check_rules(run), *check_plan(run)[0]]


def check_rules(run: Situation) -> list[Finding]:
    """Run every rule; one that crashes becomes a finding."""
    found = [ok("config.schema", f"{len(run.resolved.origins)} keys are known and in range", str(run.resolved.path))]
    if not run.is_installed:
        message = "what the installed libraries can do was not checked: torch and transformers are not installed"
        found.append(skipped("config.stack", message, "make setup"))
    for rule in RULES:
        found += run_check(lambda rule=rule: rule(run), f"config.{rule.__name__}")  # type: ignore[misc]
    return found


def check_plan(
    run: Situation, rows: TokenRows | None = None, held_out: TokenRows | None = None
) -> tuple[list[Finding], Question | None]:
    """Plan a run once, and hold its memory against the device; return the plan with what is found.

    Args:
        run: What is about to run.
        rows: What it is trained on; None where that is not known, and each row is taken to be full length.
        held_out: What it is evaluated on.
    """
    planned: list[Question | None] = []

    def plan() -> list[Finding]:
        device = device_for(run.settings, run.judgement, run.machine, run.stack)
        planned.append(question_of(run.settings, device, rows, held_out))
        return memory.fits(run, planned[0])

    found = run_check(plan, "config.memory")
    question = planned[0] if planned else None
    if question:
        found += run_check(lambda: duration.duration(run, question.plan), "config.duration")
    return found, question
