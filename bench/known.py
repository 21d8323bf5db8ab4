"""What the ledger knows of each device. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.measurements import AGAIN, measurements
from bench.variants import BASELINE, SCALES, flop_per_token
from kit.plan.ledger import newest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.plan.ledger import Record

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Device:
    """All that is known of one device at one scale.

    Attributes:
        name: The device's.
        scale: ``7b`` or ``small``.
        records: The newest of each measurement, by name.
    """

    name: str
    scale: str
    records: dict[str, Record]

    def result(self, name: str) -> dict[str, Any] | None:
        """Return a measurement's figures; None where there are none."""
        record = self.records.get(name)
        return None if record is None or "failed" in record.result else record.result

    def why_not(self, name: str) -> str:
        """Say why there are none."""
        record = self.records.get(name)
        return NOT_MEASURED if record is None else f"{NOT_MEASURED}: {record.result.get('failed', '')}"

    def baseline(self, workload: str) -> float | None:
        """Return the tokens a second of trl's own defaults: the mean of its runs, first and last."""
        runs = [self.result(f"speed/{workload}/{BASELINE}{again}") for again in ("", AGAIN)]
        rates = [float(run["tokens_per_second"]) for run in runs if run]
        return statistics.mean(rates) if rates else None

    def ceiling(self) -> float | None:
        """Return the tokens a second at the matrix product's rate, if a token cost no recomputation."""
        found = self.result("ceiling")
        scale = SCALES[self.scale]
        return found["matmul_flop_per_second"] / flop_per_token(scale.shape, scale.length) if found else None


def devices(records: Sequence[Record], scale: str = "7b") -> list[Device]:
    """Return what is known by device, in the order of their names."""
    names = sorted({record.place.device for record in records if record.place.scale == scale})
    return [
        Device(
            name,
            scale,
            newest([record for record in records if (record.place.device, record.place.scale) == (name, scale)]),
        )
        for name in names
    ]


def speed_names(device: Device, workload: str) -> list[str]:
    """Return all there are, the unmeasured too; on this device those that were measured once and are gone as well."""
    wanted = [
        item.name for item in measurements(()) if item.name.startswith((f"speed/{workload}/", f"peer/{workload}/"))
    ]
    wanted += [name for name in device.records if name.startswith(f"speed/{workload}/") and name not in wanted]
    return wanted


def variant_of(name: str) -> str:
    """Return what comes after a measurement's kind and rows."""
    return name.split("/", maxsplit=2)[2]
