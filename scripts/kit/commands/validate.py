"""Check everything before a run: this environment, one configuration, its model and its data; one verdict.

Run as:
    python scripts/validate.py                                              the configuration that fits this machine
    python scripts/validate.py configs/training_config_h100.yaml training.max_seq_length=2048
    python scripts/validate.py configs/training_config_h100.yaml --from h100.json    for a recorded machine
    python scripts/validate.py CONFIG --from h100.json --stack current      for the stack that is not its usual one
    python scripts/validate.py CONFIG --json                                one JSON object on stdout

With --from the configuration and the data are judged for the recorded machine and the stack that runs there (in the
image on an H100, so reference; elsewhere current), and the environment is not checked: it is the other machine's. Exit
codes: 0 fine or warnings only, 1 something has to be mended, 2 wrong use.
"""

from __future__ import annotations

from kit.cli.interpreter import use_project_python

if __name__ == "__main__":
    use_project_python()

from typing import TYPE_CHECKING

from kit.checks.preflight import check_run, once
from kit.cli.command import command_parser, refuse, run_main
from kit.cli.console import say
from kit.cli.findings import Finding, exit_code, skipped
from kit.config.error import ConfigError
from kit.config.resolve import resolve
from kit.environment.checks import environment_findings
from kit.environment.probe import probe as probe_environment
from kit.machine.target import Target, add_target_arguments, show, target_of
from kit.stacks.stack import Stack, installed_stack, stack_named, stack_run_on
from kit.train.auto_fit import check_fitted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from kit.config.settings import Settings

WRONG_USE = 2
VERDICTS = ("ready", "not ready: the run would fail")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__, "validate.py")
    add_target_arguments(parser)
    parser.add_argument(
        "--stack", choices=("current", "reference"), help="with --from: judge for this stack, not the usual one there"
    )
    parser.add_argument("--no-probe", action="store_true", help="do not work the device: seconds faster, and less sure")
    parser.add_argument(
        "--auto-fit", action="store_true", help="judge what `train --auto-fit` takes where the settings do not fit"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check, report, return the exit code."""
    options = _parser().parse_intermixed_args(argv)
    try:
        target = target_of(options)
        stack = judged_stack(target)
    except ValueError as exc:
        return refuse(exc)
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
        what = "nothing else was checked: there is no configuration to check it for"
        findings.append(skipped("validate.rest", what, "mend the command first"))
    else:
        findings += check_environment(settings, target, work=not options.no_probe)
    findings = once(findings)
    code = code or exit_code(findings)
    show(findings, target, VERDICTS, failed=code != 0, json=options.json)
    return code


def judged_stack(target: Target) -> Stack:
    """Return the stack that would run: the installed one here, and on a recorded machine the one that was asked for.

    Raises:
        ValueError: Another stack is asked for on this machine, whose environment is checked with the installed one.
    """
    if target.is_recorded:
        platform = target.judgement.platform
        return stack_named(target.stack or stack_run_on(platform), platform, elsewhere=True)
    installed = installed_stack()
    if target.stack and installed.name not in {target.stack, "none"}:
        fix = f"make setup STACK={target.stack}"
        raise ValueError(f"--stack {target.stack}: this environment is the {installed.name} stack; {fix}")
    return installed


def check_environment(settings: Settings | None, target: Target, *, work: bool) -> list[Finding]:
    """Check this environment, unless the machine that is judged is another."""
    if target.is_recorded:
        what = "the environment was not checked: the machine is a recorded one, and this is another"
        return [skipped("environment.elsewhere", what, "run make validate on that machine")]
    work = work and settings is not None  # a slip in the configuration is said in a second
    say("environment, and a few steps of real work on the device …" if work else "environment …", "dim")
    environment = probe_environment(settings, work=work)
    # A broken configuration does not say which model and which folder; the default ones are not the question.
    findings = environment_findings(environment, settings, target.judgement.platform, with_access=settings is not None)
    if settings is None:
        what = "model, wandb and disk were not checked: the configuration that names them has errors"
        findings.append(skipped("environment.access", what, "mend the configuration first"))
    return findings


if __name__ == "__main__":
    run_main(main)
