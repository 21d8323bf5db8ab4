"""JSON files: read as one object, with one error for all that can be wrong with them; replaced in one step."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from kit.files.durable import replace_file
from kit.files.regular_files import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# Levels. What shows, compares and writes such content calls itself for each; the kit's own files have about ten.
DEEPEST = 100


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        OSError: It cannot be read.
        ValueError: It holds something else; the message goes on after the file's name: "is not JSON (…)".
    """
    try:
        content = parse(read_text(path))
    except ValueError as exc:
        raise ValueError(f"is not JSON ({exc})") from exc
    if not isinstance(content, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - the file is at fault
    return content


def parse(text: str | bytes) -> Any:
    """Parse JSON that may be anybody's.

    Raises:
        ValueError: It is none, or nested deeper than anything that is meant.
    """
    too_deep = f"nested more than {DEEPEST} levels deep"
    try:
        content = json.loads(text)
    except RecursionError as exc:
        raise ValueError(too_deep) from exc
    level = [content]
    for _ in range(DEEPEST):
        level = [inner for each in level if isinstance(each, (dict, list)) for inner in _inside(each)]
        if not level:
            return content
    raise ValueError(too_deep)


def _inside(content: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return content.values() if isinstance(content, dict) else content


def object_or_none(path: Path) -> dict[str, Any] | None:
    """Read a file that holds one JSON object; None where there is none that can be read."""
    try:
        return read_object(path)
    except (OSError, ValueError):
        return None


def write_json(path: Path, data: Any) -> None:
    """Replace a JSON file in one step: a reader sees the old one or the new one, never a part.

    What JSON cannot say (NaN, infinity) is written as null.
    """
    replace_file(path, render(data))


def render(data: Any) -> bytes:
    """Return the bytes that ``write_json`` writes."""
    text = json.dumps(without_nan(data), indent=2, ensure_ascii=False, default=str, allow_nan=False)
    # A name that is not UTF-8 comes as lone surrogates, which JSON writes with a backslash.
    return f"{text}\n".encode(errors="backslashreplace")


def without_nan(data: Any) -> Any:
    """Return the data with None for each number that JSON cannot say."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: without_nan(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [without_nan(value) for value in data]
    return data
