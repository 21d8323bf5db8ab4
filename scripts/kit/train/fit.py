"""What ``--auto-fit`` changed and timed, as the receipt keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kit.config.yaml_writer import scalar


@dataclass(frozen=True)
class TimedSettings:
    """Settings timed before the run on its first updates.

    Attributes:
        after: Changes by ``key.path``; empty for the given settings.
        seconds: Of each timed update; empty on failure.
        tokens_per_second: Without padding; 0 on failure.
        memory_bytes: The peak, as ``peak_memory_bytes``; None on failure.
        problem: Why it failed; None on success.
    """

    after: dict[str, Any]
    seconds: tuple[float, ...] = ()
    tokens_per_second: float = 0.0
    memory_bytes: int | None = None
    problem: str | None = None

    def as_mapping(self) -> dict[str, Any]:
        """Return what the receipt shows."""
        return {
            "to": self.after,
            "seconds": list(self.seconds),
            "tokens_per_second": self.tokens_per_second,
            "memory_bytes": self.memory_bytes,
            "problem": self.problem,
        }

    @classmethod
    def read(cls, shown: Mapping[str, Any]) -> TimedSettings:
        """Read back what ``as_mapping`` showed; raises as ``Fit.read`` does."""
        seconds, rate = tuple(float(each) for each in shown["seconds"]), float(shown["tokens_per_second"])
        return cls(dict(shown["to"]), seconds, rate, shown["memory_bytes"], shown["problem"])


@dataclass(frozen=True)
class Fit:
    """One change of settings.

    Attributes:
        measured_bytes: The refused rehearsal's peak; None without one.
        tried: The timed alternatives; empty without ``=fast``.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    reason: str
    measured_bytes: int | None = None
    tried: tuple[TimedSettings, ...] = ()

    def as_mapping(self) -> dict[str, Any]:
        """Return what the receipt shows."""
        return {
            "from": self.before,
            "to": self.after,
            "reason": self.reason,
            "measured_bytes": self.measured_bytes,
            "tried": [item.as_mapping() for item in self.tried],
        }

    @classmethod
    def read(cls, shown: Mapping[str, Any]) -> Fit:
        """Read back what ``as_mapping`` showed; receipts from before anything was tried do not tell of it.

        Raises:
            KeyError, TypeError, ValueError, OverflowError: It was changed by hand.
        """
        before, after = dict(shown["from"]), dict(shown["to"])
        tried = tuple(TimedSettings.read(item) for item in shown.get("tried", ()))
        return cls(before, after, str(shown["reason"]), shown["measured_bytes"], tried)

    @property
    def words(self) -> str:
        """What it became, as a command line takes it."""
        return as_typed(self.after)


def as_typed(after: Mapping[str, Any]) -> str:
    """Write changes as a command line takes them, and no change in words."""
    return " ".join(f"{key}={scalar(value)}" for key, value in after.items()) or "the given settings"
