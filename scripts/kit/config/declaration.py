"""How a key of the configuration is declared: as a dataclass field with its rules and meaning."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from kit.config.platforms import PLATFORMS

REQUIRED = object()  # in place of a default


def key(  # noqa: PLR0913 - all that can be said of a key
    default: Any,
    meaning: str,
    *also_known_as: str,
    platforms: tuple[str, ...] = PLATFORMS,
    form: str = "text on one line, not empty",
    or_auto: bool = False,
    to_trainer: bool = False,
    may_differ: bool = False,
    within: tuple[float, float] | None = None,
    **rules: Any,
) -> Any:
    """Declare one key; its field's annotation is its type, and ``| None`` lets it be null.

    Args:
        default: What it is where nobody says; ``REQUIRED`` where somebody has to.
        meaning: One sentence for the reference page.
        also_known_as: What other kits call it, so that a familiar name leads to the right one.
        platforms: Where it has an effect.
        form: The words for its ``regex``.
        or_auto: May be left to the kit as ``auto``: the settings say false until somebody has decided.
        to_trainer: It is the installed trainer's argument of the same name, as it is.
        may_differ: A resumed run may have another: it says when and where something is written, not what is learnt.
        within: The least and the greatest number it may be; ``above`` stands for a least that it may not.
        rules: Cerberus' rules, or our own: see ``kit.config.validator``. Text without any is one line.
    """
    said = {"meaning": meaning, "platforms": platforms, "also_known_as": also_known_as, "form": form}
    uses = {"or_auto": or_auto, "to_trainer": to_trainer, "may_differ": may_differ}
    bounds = {"min": within[0], "max": within[1]} if within else {}
    metadata = {"rules": bounds | rules, "meta": {**said, **uses}}
    return field(metadata=metadata) if default is REQUIRED else field(default=default, metadata=metadata)
