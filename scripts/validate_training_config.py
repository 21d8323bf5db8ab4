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

from kit.interpreter import PROJECT_ROOT, use_project_python

if __name__ == "__main__":
    use_project_python()

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kit import machine as machines
from kit.config import resolve
from kit.config_error import ConfigError
from kit.console import fail, paint, say
from kit.findings import Finding, as_json, exit_code, has_errors, render, summary
from kit.machine_probe import probe
from kit.platforms import judge
from kit.rules import check
from kit.stack import installed_stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.platforms import Judgement


def recommended(judgement: Judgement) -> Path:
    """Return the configuration that fits a machine, from wherever the command was started."""
    here = judgement.recommended_config
    return here if here.exists() else PROJECT_ROOT / here


def take_config(config: Path | None, overrides: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Tell a configuration from an override in its place: ``key=value`` alone changes the recommended one."""
    if config is not None and "=" in str(config) and not config.exists():
        return None, [str(config), *overrides]
    return config, list(overrides)


def next_command(path: Path, overrides: Sequence[str], judgement: Judgement, *, failed: bool) -> str:
    """Name what to type next: the run where nothing stands in its way, the check again where something does."""
    changes = " ".join(shlex.quote(text) for text in overrides)
    # Double quotes are what a person types; they hold as long as nothing inside means something to a shell.
    quoted = shlex.quote(changes) if set(changes) & set('"$`\\!') else f'"{changes}"'
    settings = f" SET={quoted}" if changes else ""
    if failed:
        return f"mend the errors above, then: make validate CONFIG={path}{settings}"
    if path.name == recommended(judgement).name:
        target = {"h100": "train-h100", "m4": "train-m4", "cpu": "demo"}.get(judgement.platform)
        if target == "demo" and not changes:
            return "make demo"
        if target in {"train-h100", "train-m4"}:
            return f"make {target}{settings}"
    return f"make train CONFIG={path}{settings}"


def _parser() -> argparse.ArgumentParser:
    summary_line, _, body = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary_line, epilog=body, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, nargs="?", help="the YAML file; without it, the one that fits the machine")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="what to change")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--from", dest="record", type=Path, metavar="MACHINE.json", help="judge a recorded machine")
    return parser


def _report(findings: Sequence[Finding], config: Path, platform: str, following: str, *, json: bool) -> None:
    if json:
        print(as_json(findings, config=str(config), platform=platform, next_command=following))
        return
    say(f"{config} on {platform}", "bold")
    render(findings)
    colour = "red" if has_errors(findings) else "green"
    verdict = "this configuration cannot run here" if has_errors(findings) else "this configuration can run here"
    print(f"\n{paint(verdict, colour, 'bold', stream=sys.stdout)} ({summary(findings)})\nnext: {following}")


def main(argv: Sequence[str] | None = None) -> int:
    """Check and report; return the exit code."""
    arguments = _parser().parse_intermixed_args(argv)
    config, overrides = take_config(arguments.config, arguments.overrides)
    try:
        machine = machines.read(arguments.record) if arguments.record else probe()
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        return fail(f"{arguments.record}: {reason}", "name a file made by `make detect RECORD=machine.json`")
    judgement = judge(machine)
    path = config or recommended(judgement)
    try:
        resolved = resolve(path, overrides)
    except ConfigError as exc:
        findings, code = exc.findings, exc.exit_code
    else:
        findings = check(resolved, judgement, machine, installed_stack())
        code = exit_code(findings)
    following = next_command(path, overrides, judgement, failed=code != 0)
    _report(findings, path, judgement.platform, following, json=arguments.json)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
