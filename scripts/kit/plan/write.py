"""Write a configuration with other settings: a whole file, to validate and to train with like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.config.yaml_writer import annotated_yaml, scalar

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
    values = {section: dict(body) for section, body in resolved.values.items()}
    origins = dict(resolved.origins)
    for key, value in choice.changes:
        section, name = key.split(".")
        was = values[section].get(name)
        values[section][name] = value
        origins[key] = f"plan, was {scalar(was)}"
    heading = f"# {resolved.path} with the settings `make plan` found fastest: {choice.overrides}\n"
    with path.open("x", encoding="utf-8") as stream:
        stream.write(heading + annotated_yaml(values, origins))
