"""Write resolved values as YAML that reads back to the same values, here and in any other YAML reader."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from kit.cli.screen import one_line
from kit.config.yaml_reader import plain_scalar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kit.config.resolve import Resolved

_WIDEST_ALIGNED = 60  # characters
_PLAIN = re.compile(r"[A-Za-z/_.][A-Za-z0-9/_.-]*\Z")
# Words that YAML 1.1 readers take for booleans.
_YAML_1_1_BOOLEANS = frozenset({"y", "n", "yes", "no", "on", "off"})


def scalar(value: Any) -> str:
    """Write one value, lists and mappings in flow style; text is quoted where it could be taken for another type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple | dict):
        return _flow(value)
    if isinstance(value, float):
        digits, exponent, power = repr(value).partition("e")
        # 1e-05 is text to YAML 1.1, 1.0e-05 a number to all.
        return f"{digits}.0e{power}" if exponent and "." not in digits else repr(value)
    if isinstance(value, int):
        return str(value)
    plain = _PLAIN.match(value) and isinstance(plain_scalar(value), str) and value.lower() not in _YAML_1_1_BOOLEANS
    return value if plain else json.dumps(value, ensure_ascii=False)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{scalar(str(key))}: {scalar(item)}' for key, item in value.items())}}}"
    return f"[{', '.join(scalar(item) for item in value)}]"


def write_config(path: Path, resolved: Resolved, heading: str, *, may_replace: bool = False) -> None:
    """Write a whole configuration, each value with its origin, below a heading in a comment.

    Raises:
        FileExistsError: There is a file already; it stays as it is.
        OSError: The file cannot be written.
    """
    with path.open("w" if may_replace else "x", encoding="utf-8") as stream:
        stream.write(f"# {heading}\n{annotated_yaml(resolved.values, resolved.origins)}")


def annotated_yaml(values: Mapping[str, Mapping[str, Any]], origins: Mapping[str, str]) -> str:
    """Write sections of keys, each value with its origin in an aligned comment."""
    lines = {
        f"{section}.{key}": f"  {key}: {scalar(value)}" for section in values for key, value in values[section].items()
    }
    # The one long list would push every comment off the screen: it is left out of the alignment.
    width = max((len(line) for line in lines.values() if len(line) <= _WIDEST_ALIGNED), default=0)
    written = []
    for section, body in values.items():
        written.append(f"{section}:")
        written.extend(
            f"{lines[f'{section}.{key}']:<{width}}  # {one_line(origins[f'{section}.{key}'])}" for key in body
        )
    return "\n".join(written) + "\n"
