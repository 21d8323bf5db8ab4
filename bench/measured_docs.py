"""The parts of the documentation that the ledger writes. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bench.cpu_tables import data_lines, waiting_table
from bench.goals import goal_lines
from bench.known import NOT_MEASURED, devices
from bench.tables import memory_table, other_lines, profile_lines, speed_table, where_lines
from kit.plan.ledger import newest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kit.plan.ledger import Record

_PART = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- /measured -->)", re.DOTALL)
_NOBODY = f"No NVIDIA GPU was available: {NOT_MEASURED}. To measure: `make prove` on one."


def is_measured(text: str) -> bool:
    """Whether a page has parts that the ledger writes."""
    return _PART.search(text) is not None


def with_measurements(text: str, records: Sequence[Record]) -> str:
    """Return a page with its measured parts written anew.

    Raises:
        KeyError: It asks for a part that nobody writes.
    """

    def part(match: re.Match[str]) -> str:
        lines = _PARTS[match[2]](records)
        return f"{match[1]}\n" + "\n".join(lines) + f"\n\n{match[3]}"

    return _PART.sub(part, text)


def _speed(records: Sequence[Record]) -> list[str]:
    lines: list[str] = []
    for device in devices(records):
        lines += [f"### {device.name}", "", *where_lines(device), "", *goal_lines(device)]
        for workload in ("full", "ragged"):
            lines += ["", f"{workload.capitalize()} rows:", "", *speed_table(device, workload)]
        lines += ["", "Where a step's time goes:", ""]
        lines += [f"- {line}" for workload in ("full", "ragged") for line in profile_lines(device, workload)]
        lines += ["", "Besides:", "", *other_lines(device), ""]
    return lines[:-1] or [_NOBODY]


def _memory(records: Sequence[Record]) -> list[str]:
    lines: list[str] = []
    for device in devices(records):
        lines += [f"{device.name}:", "", *memory_table(device), ""]
    return lines[:-1] or [_NOBODY]


def _data(records: Sequence[Record]) -> list[str]:
    found = newest([record for record in records if record.place.scale == "data"])
    return data_lines({name: record.result for name, record in found.items()}) if found else [f"{NOT_MEASURED}."]


def _waiting(records: Sequence[Record]) -> list[str]:
    found = newest([record for record in records if record.place.scale == "cli"])
    return waiting_table({name: record.result for name, record in found.items()}) if found else [f"{NOT_MEASURED}."]


_PARTS: dict[str, Callable[[Sequence[Record]], list[str]]] = {
    "speed": _speed,
    "memory": _memory,
    "data": _data,
    "waiting": _waiting,
}
