"""What the kit wants to reach on a GPU, against what it reached. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.known import NOT_MEASURED, speed_names, variant_of
from bench.variants import BASELINE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.known import Device

WITHIN = 0.05
_CEILING_GOAL, _FULL_GOAL, _RAGGED_GOAL = 0.6, 2.0, 3.0


def goals(device: Device) -> list[tuple[str, bool | None]]:
    """Return each goal with what was reached, and whether it was; None where it was not measured."""
    return [
        *_speed_goal(device, "full", _FULL_GOAL),
        *_speed_goal(device, "ragged", _RAGGED_GOAL),
        _ceiling_goal(device),
        *_peer_goals(device),
        _memory_goal(device),
    ]


def _best(device: Device, workload: str, word: str = "") -> tuple[str, float] | None:
    rates = [
        (variant_of(name), float(found["tokens_per_second"]))
        for name in device.records
        if name.startswith(f"speed/{workload}/") and BASELINE not in name and word in name
        if (found := device.result(name))
    ]
    return max(rates, key=lambda item: item[1], default=None)


def _speed_goal(device: Device, workload: str, goal: float) -> Iterator[tuple[str, bool | None]]:
    best, plain = _best(device, workload), device.baseline(workload)
    words = f"{workload} rows, at least {goal:g} times trl's own defaults"
    if best is None or plain is None:
        yield f"{words}: {NOT_MEASURED}", None
        return
    yield f"{words}: {best[1] / plain:.2f} ({best[0]})", best[1] / plain >= goal


def _ceiling_goal(device: Device) -> tuple[str, bool | None]:
    best, ceiling = _best(device, "full", "no checkpointing"), device.ceiling()
    words = f"at least {_CEILING_GOAL:.0%} of the measured matrix product without checkpointing"
    if best is None or ceiling is None:
        return f"{words}: {NOT_MEASURED}", None
    reason = ""
    profile = device.result("profile/full")
    if best[1] / ceiling < _CEILING_GOAL and profile:
        parts = sorted(profile["groups"].items(), key=lambda item: -item[1])[:3]
        reason = "; a step is " + ", ".join(f"{name} {share:.0%}" for name, share in parts)
    return f"{words}: {best[1] / ceiling:.0%} ({best[0]}){reason}", best[1] / ceiling >= _CEILING_GOAL


def _peer_goals(device: Device) -> Iterator[tuple[str, bool | None]]:
    for workload in ("full", "ragged"):
        best = _best(device, workload)
        peers = [
            (variant_of(name), device.result(name))
            for name in speed_names(device, workload)
            if name.startswith("peer/")
        ]
        rates = [(name, float(found["tokens_per_second"])) for name, found in peers if found]
        words = f"{workload} rows, ahead of each peer"
        if best is None or not rates:
            yield f"{words}: {NOT_MEASURED}", None
            continue
        name, rate = max(rates, key=lambda item: item[1])
        yield f"{words}: {best[1] / rate:.2f} times {name}", best[1] > rate


def _memory_goal(device: Device) -> tuple[str, bool | None]:
    offs = [
        abs(found["peak_bytes"]["predicted"] / found["peak_bytes"]["measured"] - 1)
        for name in device.records
        if name.startswith("memory/") and (found := device.result(name)) and "peak_bytes" in found
    ]
    words = f"peak memory within {WITHIN:.0%} of the plan"
    if not offs:
        return f"{words}: {NOT_MEASURED}", None
    return f"{words}: {len(offs)} configurations, off by at most {max(offs):.1%}", max(offs) <= WITHIN


def goal_lines(device: Device) -> list[str]:
    """Write the goals as a list: reached, missed or not measured."""
    marks = {True: "reached", False: "missed", None: ""}
    return [f"- {words}{f': {marks[held]}' if marks[held] else ''}" for words, held in goals(device)]
