"""Facts of an environment: machine, packages, the device probe's results, and access; recorded to JSON and replayed.

``kit.environment.probe`` fills them in, ``kit.environment.checks`` judges them. No token and no key is ever a fact,
only whether there is one. Sizes are bytes, times seconds; ``None`` means "unknown".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.files.json_files import read_object
from kit.machine import recorded
from kit.machine.facts import Machine  # noqa: TC001 - a record is rebuilt by the annotations
from kit.stacks.stack import Stack, stack_of

if TYPE_CHECKING:
    from pathlib import Path

NO_FOLDER = "everything: no such folder"  # among a model's missing files


@dataclass(frozen=True)
class Stage:
    """One step of the device probe.

    Attributes:
        outcome: ``ok``, ``failed``, ``skipped``, or ``started`` if the child ended in it.
    """

    name: str
    outcome: str
    seconds: float = 0.0
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DeviceProbe:
    """The device probe's result.

    Attributes:
        outcome: ``finished`` (see the stages), ``died``, ``timed_out``, ``garbled`` or ``not_run``.
    """

    outcome: str = "not_run"
    detail: str = ""
    stages: tuple[Stage, ...] = ()

    def stage(self, name: str) -> Stage | None:
        """Return a stage by name; None if the probe did not reach it."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def fact(self, name: str) -> Any:
        """Return a fact of any stage, or None."""
        return next((stage.facts[name] for stage in self.stages if name in stage.facts), None)

    @property
    def stopped_in(self) -> str | None:
        """The stage the child ended in, if it did not finish."""
        return next((stage.name for stage in reversed(self.stages) if stage.outcome == "started"), None)

    def import_error(self, package: str) -> str | None:
        """Return why a package does not import; ``""`` if it does, None if it was not tried."""
        stage = self.stage(f"import {package}")
        if stage is None or stage.outcome == "skipped":
            return None
        return "" if stage.outcome == "ok" else stage.detail or "the process ended while importing it"


@dataclass(frozen=True)
class Lock:
    """The lock of this environment's stack, with its versions by canonical package name."""

    name: str
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelAccess:
    """Whether the base model can be loaded.

    Attributes:
        kind: ``folder`` (a local one) or ``hub``.
        missing_files: Of the folder, or of the snapshot in the cache.
        hub_answer: ``ok``, ``gated``, ``not_found``, ``unreachable`` or ``not_asked``.
    """

    name: str
    kind: str
    missing_files: tuple[str, ...] = ()
    is_cached: bool = False
    cache_directory: str = ""
    has_token: bool = False
    is_offline: bool = False
    hub_answer: str = "not_asked"


@dataclass(frozen=True)
class WandbAccess:
    """Whether Weights & Biases can be reached without a prompt.

    Attributes:
        login: Where a key was found: ``environment``, ``netrc`` or ``none``.
        mode: ``WANDB_MODE`` (``online``, ``offline``, ``disabled``), empty if unset.
    """

    login: str = "none"
    mode: str = ""


@dataclass(frozen=True)
class Environment:
    """Everything detected in one environment at one moment."""

    machine: Machine
    installed: dict[str, str] = field(default_factory=dict)  # versions by canonical name
    probe: DeviceProbe = field(default_factory=DeviceProbe)
    lock: Lock | None = None
    model: ModelAccess | None = None
    wandb: WandbAccess = field(default_factory=WandbAccess)
    output_disk_free_bytes: int | None = None
    cache_disk_free_bytes: int | None = None

    @property
    def stack(self) -> Stack:
        """The stack these packages make."""
        return stack_of(self.installed)


def from_mapping(data: Any) -> Environment:
    """Rebuild an environment from its recorded facts.

    Raises:
        ValueError: It is not such a record, or a fact is missing, unknown or of the wrong type; the message names it.
    """
    return recorded.from_mapping(Environment, data, "kit validate-environment --record")


def read(path: Path) -> Environment:
    """Read recorded facts from a file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not JSON, or not a recorded environment.
    """
    return from_mapping(read_object(path))
