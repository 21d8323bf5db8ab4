"""Check that this environment can train: the machine, the packages, and the device, by running it.

Run as::

    python scripts/kit validate-environment                      the machine, and everything wrong with it
    python scripts/kit validate-environment --require h100       fail unless it is an H100 that is ready to train
    python scripts/kit validate-environment --config FILE        also the model, wandb and precision of a run
    python scripts/kit validate-environment --record facts.json  write the facts; --from facts.json judges them

Exit codes: 0 fine or warnings only, 1 a check failed, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kit.checks.environment import environment_findings
from kit.cli.console import fail, say
from kit.cli.findings import Finding, as_json, error, exit_code, has_errors, ok, render, summary
from kit.cli.screen import one_line
from kit.config.platforms import PLATFORMS
from kit.config.resolve import resolve
from kit.environment import checks, facts
from kit.environment import device_checks as devices
from kit.environment.probe import probe
from kit.machine.platforms import judge
from kit.machine.recorded import to_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from kit.environment.facts import Environment, Stage

# What a machine of one kind also counts as.
_ALSO = {"h100": {"h100", "cuda", "cpu"}, "cuda": {"cuda", "cpu"}, "m4": {"m4", "cpu"}, "cpu": {"cpu"}}


def check_imports_h100(env: Environment | None = None) -> list[Finding]:
    """Judge CUDA 12.1+, a torch that sees the GPU, bitsandbytes' CUDA library, flash-attn. Without facts, probe."""
    return devices.check_imports_h100(env or probe())


def check_imports_m4(env: Environment | None = None) -> list[Finding]:
    """MPS built and available, torch >= 2.14, macOS 14, bitsandbytes >= 0.50. Without facts, probe."""
    return devices.check_imports_m4(env or probe())


def check_mistral_compatibility(env: Environment | None = None) -> list[Finding]:
    """Transformers >= 4.36, which imports Mistral and sees torch. Without facts, probe."""
    return checks.check_mistral_compatibility(env or probe())


def check_training_dependencies(env: Environment | None = None) -> list[Finding]:
    """Peft, trl, bitsandbytes, torch and accelerate: new enough, importing, as locked. Without facts, probe."""
    return checks.check_training_dependencies(env or probe())


def required_platform(env: Environment, required: str | None) -> list[Finding]:
    """Say whether the machine is what ``--require`` asks for."""
    if required is None:
        return []
    judgement = judge(env.machine)
    if required in _ALSO[judgement.platform]:
        return [ok("environment.platform", f"{required} is required; this machine is {judgement.platform}")]
    message = f"{required} is required; this machine is {judgement.platform}: {judgement.reason}"
    return [error("environment.platform", message, f"run it on a {required} machine")]


def show_stage(stage: Stage) -> None:
    """Tell the person what the child is doing."""
    if stage.outcome == "started":
        say(f"  {stage.name} …", "dim")
    elif stage.outcome == "failed":
        say(f"  {stage.name}: {stage.detail}", "red")


def _next_command(env: Environment, findings: Sequence[Finding], config: str | None) -> str:
    failed = next((finding for finding in findings if finding.severity == "error" and finding.fix), None)
    if failed is not None:
        return failed.fix
    return f"make validate CONFIG={config or judge(env.machine).recommended_config.as_posix()}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--require", choices=PLATFORMS, help="fail on any other platform")
    parser.add_argument("--no-probe", action="store_true", help="skip the tests of the device and the Hub")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write this machine's facts to FILE")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="judge the facts recorded in FILE")
    parser.add_argument("--config", metavar="CONFIG", help="check for this configuration")


def run(options: argparse.Namespace) -> int:
    settings = None
    if options.config:
        settings = resolve(Path(options.config)).settings
    if options.source:
        try:
            env = facts.read(options.source)
        except (OSError, ValueError) as exc:
            return fail(f"{options.source}: {getattr(exc, 'strerror', None) or exc}", "record one with --record FILE")
    else:
        say("checking machine, packages and device")
        env = probe(settings, work=not options.no_probe, on_stage=show_stage)
    if options.record:
        try:
            options.record.write_text(to_json(env), encoding="utf-8")
        except OSError as exc:
            return fail(f"{options.record}: {exc}", "name a writable file")
    judgement = judge(env.machine)
    platform = options.require or judgement.platform
    findings = [*required_platform(env, options.require), *environment_findings(env, settings, platform)]
    next_command = _next_command(env, findings, options.config)
    about = {"platform": judgement.platform, "reason": judgement.reason, "stack": env.stack.name, "next": next_command}
    if options.json:
        print(as_json(findings, **about))
    else:
        render(findings)
        verdict = "this environment cannot train yet" if has_errors(findings) else "this environment can train"
        print(f"\n{judgement.platform} ({judgement.reason}), {env.stack.name} stack")
        print(f"{verdict}: {summary(findings)}; next: {one_line(next_command)}")
    return exit_code(findings)
