"""Write a configuration with other settings: a whole file, to validate and to train with like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.config import yaml_writer

if TYPE_CHECKING:
    from pathlib import Path

    from kit.config.resolve import Resolved
    from kit.plan.alternatives import Alternative


def write_config(path: Path, resolved: Resolved, choice: Alternative) -> None:
    """Write all values, each with its origin; the changed ones name the plan.

    Raises:
        FileExistsError: There is a file already; it stays as it is.
        OSError: The file cannot be written.
    """
    origins = {key: f"plan, was {yaml_writer.scalar(resolved.value(key))}" for key, _ in choice.changes}
    heading = f"{resolved.path} with the settings `make plan` found fastest: {choice.overrides}"
    yaml_writer.write_config(path, resolved.with_changes(dict(choice.changes), origins), heading)
