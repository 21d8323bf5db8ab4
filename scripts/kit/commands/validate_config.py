"""Check a training configuration against the schema, this machine and what is installed, before anything is loaded.

Run as:
    python scripts/validate_training_config.py                          the configuration that fits this machine
    python scripts/validate_training_config.py configs/training_config_h100.yaml training.learning_rate=1e-4
    python scripts/validate_training_config.py configs/training_config_m4.yaml --from machine.json   a recorded machine
    python scripts/validate_training_config.py CONFIG --json             one JSON object on stdout, for scripts

With --from the machine is the recorded one; the files and the installed libraries are still this machine's.
Exit codes: 0 fine or warnings only, 1 something has to be mended, 2 wrong use or a file that cannot be read.
"""

from __future__ import annotations

from kit.cli.interpreter import use_project_python

if __name__ == "__main__":
    use_project_python()

from typing import TYPE_CHECKING

from kit.checks.rules import check
from kit.cli.command import command_parser, refuse, run_main
from kit.cli.findings import exit_code
from kit.config.error import ConfigError
from kit.config.resolve import resolve
from kit.machine.target import add_target_arguments, show, target_of
from kit.stacks.stack import installed_stack

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

VERDICTS = ("this configuration can run here", "this configuration cannot run here")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__, "validate_training_config.py")
    add_target_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check and report; return the exit code."""
    options = _parser().parse_intermixed_args(argv)
    try:
        target = target_of(options)
    except ValueError as exc:
        return refuse(exc)
    try:
        resolved = resolve(target.config, target.overrides)
    except ConfigError as exc:
        findings, code = exc.findings, exc.exit_code
    else:
        findings = check(resolved, target.judgement, target.machine, installed_stack())
        code = exit_code(findings)
    show(findings, target, VERDICTS, failed=code != 0, json=options.json)
    return code


if __name__ == "__main__":
    run_main(main)
