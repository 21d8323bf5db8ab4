"""Rules across fields and platforms: pure functions over one ``CheckContext``, each returning findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.checks import adapter, device, files, performance, precision, reporting, schedule
from kit.checks.context import CheckContext
from kit.checks.plan import check_plan, row_length
from kit.cli.failures import run_check
from kit.cli.findings import Finding, ok, skipped
from kit.stacks.stack import unknown_generation

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.config.resolve import Resolved
    from kit.machine.facts import Machine
    from kit.machine.platforms import Judgement
    from kit.stacks.stack import Stack

RULES: tuple[Callable[[CheckContext], list[Finding]], ...] = (
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
    performance.partial_checkpointing,
    performance.padding_free,
    performance.torch_compile,
    performance.liger_kernel,
    adapter.scaling,
    adapter.dropout,
    adapter.learning_rate,
    schedule.saving_and_evaluating,
    schedule.length_of_run,
    schedule.warmup,
    reporting.wandb,
    reporting.idle_wandb,
    row_length,
    files.model_path,
    files.data_files,
)


def check(resolved: Resolved, judgement: Judgement, machine: Machine, stack: Stack) -> list[Finding]:
    """Run every rule over a configuration, a judged machine and a stack, and plan it with rows of full length."""
    run = CheckContext(resolved, machine, judgement, stack)
    return [*check_rules(run), *check_plan(run)[0]]


def check_rules(run: CheckContext) -> list[Finding]:
    """Run every rule; one that crashes becomes a finding."""
    found = [ok("config.schema", f"{len(run.resolved.origins)} keys are valid", str(run.resolved.path))]
    if not run.is_installed:
        message = "torch and transformers are not installed, so what they support was not checked"
        found.append(skipped("config.stack", message, "make setup"))
    found += unknown_generation(run.stack)
    for rule in RULES:
        found += run_check(lambda rule=rule: rule(run), f"config.{rule.__name__}")  # type: ignore[misc]
    return found
