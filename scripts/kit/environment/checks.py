"""Check that this machine and these packages can do the run.

Pure functions over ``kit.environment.facts.Environment`` that return findings. ``device_checks`` has what a GPU needs,
``version_checks`` the versions; ``kit.checks.environment`` adds access, and disk and memory by the plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.failures import run_check
from kit.cli.findings import Finding, error, ok, skipped
from kit.config.platforms import CUDA_PLATFORMS
from kit.environment import version_checks as versions
from kit.environment.device_checks import check_flash_attention, check_imports_h100, check_imports_m4
from kit.stacks.stack import unknown_generation

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.environment.facts import Environment

_CALCULATIONS = ("train step", "bf16 matmul", "flash attention", "causal attention", "transposed matmul")


def check_mistral_compatibility(environment: Environment) -> list[Finding]:
    """Check that transformers has the Mistral model, imports it, and sees torch."""
    found = [versions.check_minimum(environment, "transformers", versions.MINIMUM_TRANSFORMERS)]
    found.extend(versions.check_import(environment, "transformers"))
    if environment.probe.fact("transformers_sees_torch") is False:
        torch = environment.installed.get("torch", "none")
        message = f"transformers does not accept torch {torch}: is_torch_available() is False"
        found.append(error("environment.transformers_sees_no_torch", message, versions.setup_command(environment)))
    return found


def check_training_dependencies(environment: Environment) -> list[Finding]:
    """Check each package that training needs: its version, its import, known bad pairs and the lock."""
    found = [*versions.check_python(environment), *unknown_generation(environment.stack)]
    for package, minimum in versions.MINIMUMS.items():
        found.append(versions.check_minimum(environment, package, minimum))
        found.extend(versions.check_import(environment, package))
    return [*found, *versions.check_known_bad_pairs(environment), *versions.check_lock(environment)]


def check_device_work(environment: Environment) -> list[Finding]:
    """Check how the device probe ended, and its results."""
    probe = environment.probe
    if probe.outcome == "not_run":
        fix = "python scripts/validate_environment.py"
        return [skipped("environment.device_probe", "device not tested: the probe did not run", fix)]
    if probe.outcome != "finished":
        where = f" in the stage {probe.stopped_in!r}" if probe.stopped_in else ""
        words = {"died": "died", "timed_out": "hung", "garbled": "gave no readable answer"}
        message = f"the device probe {words[probe.outcome]}{where}: {probe.detail}"
        setup = versions.setup_command(environment)
        fix = f"{setup} reinstalls the packages; python scripts/kit/environment/device_probe.py shows the full output"
        return [error(f"environment.device_probe_{probe.outcome}", message, fix)]
    found = []
    device = probe.fact("device_name") or "the device"
    for stage in (stage for stage in probe.stages if stage.name in _CALCULATIONS or stage.name == "device facts"):
        if stage.outcome == "failed":
            fix = f"{versions.setup_command(environment)}; if it persists, check the device, its driver and its memory"
            found.append(error("environment.device_fails", f"{stage.name} on {device}: {stage.detail}", fix))
        elif stage.outcome == "ok" and stage.name in _CALCULATIONS:
            found.append(ok("environment.device_works", f"{stage.name} on {device}: {stage.detail}"))
    if not found:
        found.append(skipped("environment.device_probe", "device not tested: torch does not import"))
    return found


def check_configured_device(environment: Environment, settings: Settings, platform: str) -> list[Finding]:
    """Check that stack and device have the 4-bit and the types that the configuration needs."""
    found = []
    stack = environment.stack
    if settings.quantization.load_in_4bit and stack.is_installed and platform not in stack.traits.four_bit_platforms:
        message = f"quantization.load_in_4bit is true, but the {stack.name} stack has no 4-bit on {platform}"
        fix = "make setup (the current stack), or quantization.load_in_4bit=false"
        found.append(error("environment.four_bit", message, fix))
    if settings.training.bf16 and environment.probe.fact("bf16_supported") is False:
        device = environment.probe.fact("device_name")
        fix = "training.bf16=false training.fp16=true model.torch_dtype=float16"
        found.append(error("environment.bf16", f"training.bf16 is true, but {device} has no bf16", fix))
    return found


def environment_findings(environment: Environment, settings: Settings | None, platform: str) -> list[Finding]:
    """Run every check of this package that applies: see ``kit.checks.environment``."""
    asked = "auto" if settings is None else settings.model.attn_implementation
    found: list[Finding] = []
    if platform in CUDA_PLATFORMS:
        found += run_check(lambda: check_imports_h100(environment), "environment.h100")
    if platform == "m4":
        found += run_check(lambda: check_imports_m4(environment), "environment.m4")
    if asked == "flash_attention_2":
        # Configured by name: its absence is an error.
        found = [finding for finding in found if finding.id != "environment.flash_attention"]
        found += run_check(lambda: check_flash_attention(environment, asked), "environment.flash_attention")
    found += run_check(lambda: check_mistral_compatibility(environment), "environment.mistral")
    found += run_check(lambda: check_training_dependencies(environment), "environment.dependencies")
    found += run_check(lambda: check_device_work(environment), "environment.device")
    if settings is not None:
        found += run_check(lambda: check_configured_device(environment, settings, platform), "environment.configured")
    # Two checks may find the same problem, such as a missing torch.
    return list({(finding.id, finding.where, finding.message): finding for finding in found}.values())
