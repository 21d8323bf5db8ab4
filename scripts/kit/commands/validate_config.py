"""Check a training configuration against the schema, this machine and what is installed, before anything is loaded.

Run as:
    python scripts/kit validate-config                          the configuration that fits this machine
    python scripts/kit validate-config configs/training_config_h100.yaml training.learning_rate=1e-4
    python scripts/kit validate-config configs/training_config_m4.yaml --from machine.json   a recorded machine

With --from the machine is the recorded one; the files and the installed libraries are still this machine's.
Exit codes: 0 fine or warnings only, 1 errors found, 2 wrong use or a file that cannot be read.
"""

from __future__ import annotations

import argparse

from kit.checks.rules import check
from kit.cli.findings import exit_code
from kit.config.error import ConfigError
from kit.config.resolve import resolve
from kit.machine.target import add_target_arguments, show, target_of
from kit.stacks.stack import installed_stack

VERDICTS = ("this configuration can run here", "this configuration cannot run here")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target_arguments(parser)


def run(options: argparse.Namespace) -> int:
    target = target_of(options)
    try:
        resolved = resolve(target.config, target.overrides)
    except ConfigError as exc:
        findings, code = exc.findings, exc.exit_code
    else:
        findings = check(resolved, target.judgement, target.machine, installed_stack())
        code = exit_code(findings)
    show(findings, target, VERDICTS, failed=code != 0, json=options.json)
    return code
