"""The generations. A new one is a file beside this one, and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.stacks import current, reference
from kit.stacks.generation import version_tuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kit.stacks.generation import Generation

# Oldest first.
GENERATIONS = {item.traits.name: item for item in (reference.GENERATION, current.GENERATION)}
# What make takes where STACK= does not say otherwise.
DEFAULT = current.TRAITS.name


def generation_of(name: str, versions: Mapping[str, str]) -> Generation:
    """Return a generation; for a name that is none of them, the one that installed versions are nearest to.

    That is the last to have begun with an older transformers, the first where all began with a newer one, and the
    default where none is installed.
    """
    if name in GENERATIONS:
        return GENERATIONS[name]
    installed = version_tuple(versions.get("transformers", ""))
    if not installed:
        return GENERATIONS[DEFAULT]
    begun = [item for item in GENERATIONS.values() if item.known["transformers"][0] <= installed]
    return begun[-1] if begun else next(iter(GENERATIONS.values()))


def make_argument(name: str) -> str:
    """Return ``make``'s argument for a generation, `` STACK=reference``; empty for the default, or for none."""
    return f" STACK={name}" if name in GENERATIONS and name != DEFAULT else ""


def stack_run_on(platform: str) -> str:
    """Name the generation that a platform's own command runs: ``make train-h100`` takes the image's."""
    return next((name for name, item in GENERATIONS.items() if platform in item.usual_on), DEFAULT)
