"""The values an adapter's configuration may have: plain LoRA's, of the right type and within bounds. No library."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kit.run_directory.history import RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COPY_AGAIN = "copy the whole adapter directory"
_LARGEST_RANK, _LARGEST_ALPHA, _LONGEST_PATH, _LONGEST_NAME = 65_536, 1e9, 4096, 1000
# A module's name, or its last parts. Its only regular-expression character is the dot.
_PLAIN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def check_values(config: dict[str, Any], place: str) -> None:
    """Refuse values that plain LoRA does not have.

    Raises:
        RunError: One of them, by its field's name.
    """

    def is_number(value: Any, least: float, most: float) -> bool:
        return type(value) in {int, float} and least <= value <= most  # NaN is neither

    def is_rank(value: Any) -> bool:
        return type(value) is int and 1 <= value <= _LARGEST_RANK

    def is_alpha(value: Any) -> bool:
        return is_number(value, -_LARGEST_ALPHA, _LARGEST_ALPHA)

    def is_text(value: Any) -> bool:
        return value is None or (isinstance(value, str) and len(value) <= _LONGEST_PATH)

    allowed = {
        "r": is_rank(config.get("r")),
        "lora_alpha": is_alpha(config.get("lora_alpha")),
        "lora_dropout": is_number(config.get("lora_dropout", 0), 0, 1),
        "target_modules": isinstance(config.get("target_modules"), (list, str)),
        "bias": config.get("bias", "none") == "none",
        "task_type": config.get("task_type") in (None, "CAUSAL_LM"),
        "init_lora_weights": isinstance(config.get("init_lora_weights", True), (bool, str, type(None))),
        **{key: isinstance(config.get(key, False), bool) for key in ("fan_in_fan_out", "inference_mode")},
        **{key: is_text(config.get(key)) for key in ("base_model_name_or_path", "revision")},
        "rank_pattern": _is_pattern(config.get("rank_pattern"), is_rank),
        "alpha_pattern": _is_pattern(config.get("alpha_pattern"), is_alpha),
    }
    for key, is_allowed in allowed.items():
        if not is_allowed:
            raise RunError(
                f"{place}: {key} is {_short(config.get(key))}, which plain LoRA does not allow; {COPY_AGAIN}"
            )


def _is_pattern(value: Any, is_allowed: Callable[[Any], bool]) -> bool:
    if value is None:
        return True
    return isinstance(value, dict) and all(
        is_plain(name.removeprefix("^")) and is_allowed(own) for name, own in value.items()
    )


def plain_names(config: dict[str, Any], key: str, place: str) -> list[str]:
    """Return a field that lists modules.

    Raises:
        RunError: It holds something else than plain names: peft would take them for regular expressions.
    """
    names = config.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) and is_plain(name) for name in names):
        raise RunError(f"{place}: {key} is {_short(names)}, not a list of plain names; {COPY_AGAIN}")
    return names


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"  # noqa: PLR2004 - a line


def is_plain(name: str) -> bool:
    """Tell a module's name, or the end of one, from a pattern."""
    return len(name) <= _LONGEST_NAME and _PLAIN.fullmatch(name) is not None


def endings(module: str) -> Iterator[str]:
    """Yield the names that mean a module: all of its own, and its last parts."""
    while module:
        yield module
        module = module.partition(".")[2]
