"""What is known of a machine: frozen facts, recorded to JSON and replayed from it.

Probing fills these in (``kit.machine_probe``), judging reads them (``kit.platforms``); neither does the other's work.
Sizes are bytes. ``None`` means "could not be found out", never "none there".
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, or one MIG slice of it, as the driver reports it."""

    index: int
    name: str
    memory_total_bytes: int
    memory_used_bytes: int | None = None
    compute_capability: tuple[int, int] | None = None
    mig_enabled: bool = False
    is_mig_slice: bool = False


@dataclass(frozen=True)
class Nvidia:
    """The NVIDIA side of a machine.

    Attributes:
        driver_version: Such as ``535.104.05``; None where no driver answered.
        cuda_driver_version: The newest CUDA the driver supports, as (major, minor).
        source: ``nvml``, ``nvidia-smi`` or ``none``: who answered.
        problem: Why nothing usable came back although something of NVIDIA's is there; empty otherwise.
    """

    gpus: tuple[Gpu, ...] = ()
    driver_version: str | None = None
    cuda_driver_version: tuple[int, int] | None = None
    source: str = "none"
    problem: str = ""


@dataclass(frozen=True)
class Apple:
    """The Apple side of a machine.

    Attributes:
        chip: Such as ``Apple M4 Max``, or an Intel processor's name.
        macos_version: As (major, minor).
        is_apple_silicon: The hardware is arm64, whatever Python runs on it.
        is_rosetta: This Python is an x86-64 build running translated.
        gpu_cores: As system_profiler counts them.
        unified_memory_bytes: Memory shared by CPU and GPU.
    """

    chip: str
    macos_version: tuple[int, int] | None
    is_apple_silicon: bool
    is_rosetta: bool
    unified_memory_bytes: int | None
    gpu_cores: int | None = None


@dataclass(frozen=True)
class Machine:
    """Everything detection found out about one machine, at one moment.

    ``memory_available_bytes`` and ``disk_free_bytes`` describe that moment; ``disk_free_bytes`` is the project's disk.
    ``mps_available`` is torch's own answer where torch is installed, None where it is not (see ``check_mps_backend``).
    """

    system: str  # platform.system(): Linux, Darwin, Windows
    arch: str  # platform.machine() of the running Python
    python_version: str
    cpu_model: str
    cpu_count: int
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    disk_free_bytes: int | None
    in_container: bool
    nvidia: Nvidia = field(default_factory=Nvidia)
    apple: Apple | None = None
    mps_available: bool | None = None


def to_json(machine: Machine) -> str:
    """Serialise a machine's facts; ``from_mapping`` reads them back."""
    return json.dumps({"schema_version": SCHEMA_VERSION, "machine": asdict(machine)}, indent=2) + "\n"


def _pair(value: Any) -> tuple[int, int] | None:
    return None if value is None else (int(value[0]), int(value[1]))


def from_mapping(data: dict[str, Any]) -> Machine:
    """Rebuild a machine from its recorded facts.

    Raises:
        ValueError: The record is not one of ours, or is of another schema version.
    """
    if data.get("schema_version") != SCHEMA_VERSION or not isinstance(data.get("machine"), dict):
        raise ValueError(f"not a machine recorded by `make detect RECORD=…` (schema_version {SCHEMA_VERSION})")
    facts = dict(data["machine"])
    try:
        nvidia = dict(facts.pop("nvidia", None) or {})
        gpus = tuple(
            Gpu(**{**gpu, "compute_capability": _pair(gpu.get("compute_capability"))}) for gpu in nvidia.pop("gpus", ())
        )
        cuda = _pair(nvidia.pop("cuda_driver_version", None))
        apple = facts.pop("apple", None)
        return Machine(
            **facts,
            nvidia=Nvidia(gpus=gpus, cuda_driver_version=cuda, **nvidia),
            apple=None if apple is None else Apple(**{**apple, "macos_version": _pair(apple.get("macos_version"))}),
        )
    except (TypeError, KeyError, IndexError) as exc:
        raise ValueError(f"the recorded machine is incomplete or has unknown facts: {exc}") from exc


def read(path: Path) -> Machine:
    """Read recorded facts from a file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not JSON, or not a recorded machine.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError("not a machine recorded by `make detect RECORD=…`: the root is no JSON object")  # noqa: TRY004
    return from_mapping(data)
