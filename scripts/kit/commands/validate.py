"""Check everything before a run: this environment, one configuration, its model and its data; one verdict.

Run as:
    python scripts/kit validate                                              the configuration that fits this machine
    python scripts/kit validate configs/training_config_h100.yaml training.max_seq_length=2048
    python scripts/kit validate configs/training_config_h100.yaml --from h100.json    for a recorded machine

With --from the configuration and the data are judged for the recorded machine and the stack that runs there (in the
image on an H100, so reference; elsewhere current), and the environment is not checked: it is the other machine's. Exit
codes: 0 fine or warnings only, 1 errors found, 2 wrong use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.checks.environment import environment_findings
from kit.checks.preflight import check_run, once
from kit.cli.console import say
from kit.cli.findings import Finding, exit_code, skipped
from kit.cli.mistakes import WrongUseError
from kit.config.error import ConfigError
from kit.config.resolve import resolve
from kit.environment.probe import probe as probe_environment
from kit.machine.target import Target, add_target_arguments, show, target_of
from kit.stacks.registry import GENERATIONS, stack_run_on
from kit.stacks.stack import Stack, installed_stack, stack_named
from kit.train.auto_fit import check_fitted

if TYPE_CHECKING:
    import argparse

    from kit.config.settings import Settings

WRONG_USE = 2
VERDICTS = ("ready", "not ready: the run would fail")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target_arguments(parser)
    parser.add_argument(
        "--stack", choices=tuple(GENERATIONS), help="with --from: judge for this stack; default: the machine's own"
    )
    parser.add_argument("--no-probe", action="store_true", help="skip the device test: faster, less certain")
    parser.add_argument(
        "--auto-fit", action="store_true", help="if the settings do not fit, judge those of `train --auto-fit`"
    )


def run(options: argparse.Namespace) -> int:
    target = target_of(options)
    stack = judged_stack(target)
    findings = list(target.judgement.findings)
    settings: Settings | None = None
    code = 0
    try:
        resolved = resolve(target.config, target.overrides)
    except ConfigError as exc:
        findings += exc.findings
        code = exc.exit_code
    else:
        settings = resolved.settings
        where = f"{target.judgement.platform}, {stack.name} stack" if target.is_recorded else target.judgement.platform
        say(f"{target.config} on {where}: configuration, model and data …", "dim")
        if options.auto_fit:
            preflight, _ = check_fitted(resolved, target.judgement, target.machine, stack, download=False)
        else:
            preflight = check_run(resolved, target.judgement, target.machine, stack, download=False)
        findings += preflight.findings
    if code == WRONG_USE:  # known at once: nothing is imported, and no device worked, to say so later
        what = "nothing else was checked: there is no valid configuration"
        findings.append(skipped("validate.rest", what, "fix the command first"))
    else:
        findings += check_environment(settings, target, work=not options.no_probe)
    findings = once(findings)
    code = code or exit_code(findings)
    show(findings, target, VERDICTS, failed=code != 0, json=options.json)
    return code


def judged_stack(target: Target) -> Stack:
    """Return the stack that would run: the installed one here, and on a recorded machine the one that was asked for.

    Raises:
        WrongUseError: Another stack is asked for on this machine, whose environment is checked with the installed one.
    """
    if target.is_recorded:
        platform = target.judgement.platform
        return stack_named(target.stack or stack_run_on(platform), platform, elsewhere=True)
    installed = installed_stack()
    if target.stack and installed.is_installed and installed.name != target.stack:
        fix = f"make setup STACK={target.stack}"
        raise WrongUseError(f"--stack {target.stack}: this environment is the {installed.name} stack; {fix}")
    return installed


def check_environment(settings: Settings | None, target: Target, *, work: bool) -> list[Finding]:
    """Check this environment, unless the machine that is judged is another."""
    if target.is_recorded:
        what = "the environment was not checked: the recorded machine is another one"
        return [skipped("environment.elsewhere", what, "run make validate on that machine")]
    work = work and settings is not None  # a wrong configuration is reported within a second
    say("environment, and a few steps on the device …" if work else "environment …", "dim")
    environment = probe_environment(settings, work=work)
    # A broken configuration does not say which model and which folder; the default ones are not the question.
    findings = environment_findings(environment, settings, target.judgement.platform, with_access=settings is not None)
    if settings is None:
        what = "model, wandb and disk were not checked: their configuration has errors"
        findings.append(skipped("environment.access", what, "fix the configuration first"))
    return findings
