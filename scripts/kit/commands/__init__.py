"""The commands a person types, one module each: ``add_arguments(parser)`` and ``run(options)``, the exit code.

The listing and the start of each. Standard library only, and for Python 3.9 on: a command's own module is imported once
it is chosen, so that detection answers at once, and before anything is installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from kit.cli.command import call, run_main
from kit.cli.interpreter import use_project_python


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: As it is typed; its module has underscores for hyphens.
        needs_packages: It runs in the project's environment; without, on any Python.
        ignores_broken_pipe: It goes on where nobody reads its output any more.
    """

    name: str
    about: str
    needs_packages: bool = True
    ignores_broken_pipe: bool = False


GROUPS: dict[str, tuple[Command, ...]] = {
    "Start here": (
        Command("detect", "detect the hardware and choose a configuration", needs_packages=False),
        Command("demo", "a real 4-bit fine-tuning run in minutes, on any machine", ignores_broken_pipe=True),
    ),
    "Data": (Command("data", "check, split and write training rows"),),
    "Train": (
        Command("validate", "check environment, configuration, model and data together"),
        Command("validate-environment", "check the packages and test the device"),
        Command("validate-config", "check a configuration against the schema and this machine"),
        Command("plan", "estimate a run's memory and time, and list faster settings"),
        Command("config", "print the resolved configuration with the origin of each value"),
        Command("train", "check everything, then train", ignores_broken_pipe=True),
    ),
    "Use": (
        Command("report", "write a run's report: one page, and its curves as a picture"),
        Command("watch", "follow a run live"),
        Command("runs", "list the runs on this machine"),
        Command("evaluate", "compare the adapter with its base: loss, perplexity, exact match, ROUGE, samples"),
        Command("chat", "chat with base + adapter"),
        Command("merge", "merge the adapter into its base, and compare the logits"),
        Command("portable-adapter", "copy an adapter so that every peft since 0.7.0 loads it"),
    ),
    "Prove": (
        Command("verify", "recompute every checksum of a run"),
        Command("reproduce", "retrain a finished run and compare, bit by bit", ignores_broken_pipe=True),
        Command("diff-run", "compare two runs: differences, first differing step, likely cause"),
        Command("parity", "train a small canonical model and compare every number with the formulas"),
    ),
    "Container": (Command("image", "build the image and run the kit in it", needs_packages=False),),
    "This command line": (Command("completion", "print the shell completion script"),),
}
COMMANDS = {command.name: command for group in GROUPS.values() for command in group}


def module_of(name: str) -> str:
    """Return the name of a command's module."""
    return f"{__name__}.{name.replace('-', '_')}"


def start(name: str, argv: Sequence[str]) -> NoReturn:
    """Run a command as this process, to its end.

    Raises:
        SystemExit: Always, with the exit code.
    """
    command = COMMANDS[name]
    if command.needs_packages:
        use_project_python()
    run_main(
        lambda: call(importlib.import_module(module_of(name)), argv),
        ignores_broken_pipe=command.ignores_broken_pipe,
    )
