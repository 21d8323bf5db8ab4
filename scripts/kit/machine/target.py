"""What the validating commands share: configuration, machine, verdict and next command."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.console import say
from kit.cli.findings import Finding, as_json, conclude, has_errors, render
from kit.cli.interpreter import PROJECT_ROOT
from kit.cli.mistakes import WrongUseError
from kit.cli.screen import one_line
from kit.machine import facts as machines
from kit.machine.platforms import Judgement, judge
from kit.machine.probe import probe

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from kit.machine.facts import Machine


@dataclass(frozen=True)
class Target:
    """One configuration on one machine, this one or a recorded one; ``stack`` is None unless one was asked for."""

    config: Path
    overrides: tuple[str, ...]
    machine: Machine
    judgement: Judgement
    is_recorded: bool
    stack: str | None = None


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the configuration and its overrides. Parse with ``parse_intermixed_args``."""
    parser.add_argument("config", type=Path, nargs="?", help="the YAML file (default: the one that fits the machine)")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="what to change")


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the configuration, ``--from`` for a recorded machine, and ``--json``."""
    add_config_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--from", dest="record", type=Path, metavar="MACHINE.json", help="judge a recorded machine")


def target_of(options: argparse.Namespace) -> Target:
    """Return the configuration and the machine to check.

    Raises:
        WrongUseError: The recorded machine cannot be read.
    """
    config, overrides, record = options.config, list(options.overrides), getattr(options, "record", None)
    if config is not None and "=" in str(config) and not config.exists():
        # An override in the configuration's place changes the recommended one.
        config, overrides = None, [str(config), *overrides]
    try:
        machine = machines.read(record) if record else probe()
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise WrongUseError(f"{record}: {reason}; name a file made by `make detect RECORD=machine.json`") from exc
    judgement = judge(machine)
    stack = getattr(options, "stack", None)
    return Target(config or recommended(judgement), tuple(overrides), machine, judgement, bool(record), stack)


def recommended(judgement: Judgement) -> Path:
    """Return the path of the configuration that fits a machine, valid in any working directory."""
    here = judgement.recommended_config
    return here if here.exists() else PROJECT_ROOT / here


def next_command(target: Target, *, failed: bool) -> str:
    """Return the next command: the run, or after errors the check again."""
    changes = " ".join(shlex.quote(text) for text in target.overrides)
    # People type double quotes; they suffice unless something inside is special to a shell.
    quoted = shlex.quote(changes) if set(changes) & set('"$`\\!') else f'"{changes}"'
    settings = (f" STACK={target.stack}" if target.stack else "") + (f" SET={quoted}" if changes else "")
    if failed:
        return f"fix the errors above, then: make validate CONFIG={target.config}{settings}"
    if target.config.name == target.judgement.recommended_config.name:
        command = {"h100": "train-h100", "m4": "train-m4", "cpu": "demo"}.get(target.judgement.platform)
        if command == "demo" and not settings:
            return "make demo"
        if command in {"train-h100", "train-m4"}:
            return f"make {command}{settings}"
    return f"make train CONFIG={target.config}{settings}"


def show(findings: Sequence[Finding], target: Target, verdicts: tuple[str, str], *, failed: bool, json: bool) -> None:
    """Show all findings, then a verdict (``verdicts``: of success, of failure) and the next command."""
    following = next_command(target, failed=failed)
    judgement = target.judgement
    if json:
        facts = {"platform": judgement.platform, "reason": judgement.reason, "next_command": following}
        print(as_json(findings, config=str(target.config), **facts))
        return
    say(f"{target.config} on {judgement.platform}: {judgement.reason}", "bold")
    render(findings)
    conclude(verdicts[has_errors(findings)], findings)
    print(f"next: {one_line(following)}")
