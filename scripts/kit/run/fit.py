"""One change of settings that ``--auto-fit`` made, as the receipt keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kit.config.yaml_writer import scalar


@dataclass(frozen=True)
class Fit:
    """One change of settings.

    Attributes:
        before: What was asked for, by ``key.path``.
        after: What it became.
        reason: Why, in words.
        measured_bytes: The most that was in use and asked for when a rehearsal was refused; None before one.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    reason: str
    measured_bytes: int | None = None

    def as_mapping(self) -> dict[str, Any]:
        """Return what the receipt shows."""
        return {"from": self.before, "to": self.after, "reason": self.reason, "measured_bytes": self.measured_bytes}

    @property
    def words(self) -> str:
        """What it became, as a command line takes it."""
        return " ".join(f"{key}={scalar(value)}" for key, value in self.after.items())
