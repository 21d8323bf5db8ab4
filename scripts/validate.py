"""Check everything before a run: this environment, one configuration, its model and its data; one verdict.

Run as:
    python scripts/validate.py                                              the configuration that fits this machine
    python scripts/validate.py configs/training_config_h100.yaml training.max_seq_length=2048
    python scripts/validate.py configs/training_config_h100.yaml --from h100.json    for a recorded machine
    python scripts/validate.py CONFIG --json                                one JSON object on stdout

With --from the configuration and the data are judged for the recorded machine, and the environment is not checked:
it is the other machine's. Exit codes: 0 fine or warnings only, 1 something has to be mended, 2 wrong use.
"""

from __future__ import annotations

from kit.interpreter import use_project_python

if __name__ == "__main__":
    use_project_python()

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kit import machine as machines
from kit.config import resolve
from kit.config_error import ConfigError
from kit.console import fail, paint, say
from kit.environment_checks import environment_findings
from kit.environment_probe import probe as probe_environment
from kit.findings import Finding, as_json, exit_code, has_errors, render, skipped, summary
from kit.machine_probe import probe as probe_machine
from kit.platforms import Judgement, judge
from kit.preflight import check_run
from kit.stack import installed_stack
from validate_training_config import next_command, recommended, take_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Check, report, return the exit code."""
    options = _parser().parse_intermixed_args(argv)
    config, overrides = take_config(options.config, options.overrides)
    try:
        machine = machines.read(options.record) if options.record else probe_machine()
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        return fail(f"{options.record}: {reason}", "name a file made by `make detect RECORD=machine.json`")
    judgement = judge(machine)
    path = config or recommended(judgement)
    findings = list(judgement.findings)
    settings: Settings | None = None
    code = 0
    try:
        resolved = resolve(path, overrides)
    except ConfigError as exc:
        findings += exc.findings
        code = exc.exit_code
    else:
        settings = resolved.settings
        say(f"{path} on {judgement.platform}: configuration, model and data …", "dim")
        findings += check_run(resolved, judgement, machine, installed_stack(), download=False).findings
    findings += _environment(settings, judgement, elsewhere=options.record is not None, work=not options.no_probe)
    findings = list(dict.fromkeys(findings))
    code = code or exit_code(findings)
    _report(findings, path, judgement, next_command(path, overrides, judgement, failed=code != 0), json=options.json)
    return code


def _parser() -> argparse.ArgumentParser:
    first, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, nargs="?", help="the YAML file; without it, the one that fits the machine")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="what to change")
    parser.add_argument("--from", dest="record", type=Path, metavar="MACHINE.json", help="judge a recorded machine")
    parser.add_argument("--no-probe", action="store_true", help="do not work the device: seconds faster, and less sure")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _environment(settings: Settings | None, judgement: Judgement, *, elsewhere: bool, work: bool) -> list[Finding]:
    if elsewhere:
        what = "the environment was not checked: the machine is a recorded one, and this is another"
        return [skipped("environment.elsewhere", what, "run make validate on that machine")]
    say("environment …" if not work else "environment, and a few steps of real work on the device …", "dim")
    environment = probe_environment(settings, work=work)
    return environment_findings(environment, settings, judgement.platform)


def _report(findings: list[Finding], path: Path, judgement: Judgement, following: str, *, json: bool) -> None:
    if json:
        print(
            as_json(
                findings,
                config=str(path),
                platform=judgement.platform,
                reason=judgement.reason,
                next_command=following,
            )
        )
        return
    say(f"{path} on {judgement.platform}: {judgement.reason}", "bold")
    render(findings)
    failed = has_errors(findings)
    verdict = "not ready: the run would fail" if failed else "ready"
    print(
        f"\n{paint(verdict, 'red' if failed else 'green', 'bold', stream=sys.stdout)} ({summary(findings)})\n"
        f"next: {following}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
