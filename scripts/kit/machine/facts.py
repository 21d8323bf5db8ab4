"""A machine's facts, recorded to JSON and replayed from it.

``kit.machine.probe`` fills them in, ``kit.machine.platforms`` judges them. Sizes are bytes; ``None`` means "unknown".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.files.json_files import read_object
from kit.machine import recorded

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, or one MIG slice of it, as the driver reports it.

    Attributes:
        index: The driver's number; slices have their GPU's.
        mig_enabled: In MIG mode; without ``is_mig_slice`` it has no slice, and CUDA sees nothing.
        memory_reserved_bytes: By the driver itself, not in ``memory_used_bytes``; None if not reported separately.
    """

    index: int
    name: str
    memory_total_bytes: int
    memory_used_bytes: int | None = None
    compute_capability: tuple[int, int] | None = None
    mig_enabled: bool = False
    is_mig_slice: bool = False
    memory_reserved_bytes: int | None = None

    @property
    def memory_free_bytes(self) -> int:
        """Free memory by the driver's report; all of it if usage is unknown."""
        return self.memory_total_bytes - (self.memory_used_bytes or 0) - (self.memory_reserved_bytes or 0)


@dataclass(frozen=True)
class Nvidia:
    """The NVIDIA side of a machine.

    Attributes:
        gpus: Every GPU the driver lists, or its MIG slices in its place.
        cuda_driver_version: The newest CUDA the driver supports, as (major, minor).
        source: ``nvml``, ``nvidia-smi`` or ``none``.
        problem: Why nothing, or not everything, is known although there is NVIDIA hardware or software.
        cuda_visible_devices: The environment variable without whole UUIDs, which identify a machine.
        visible: Positions in ``gpus`` that the variable allows, in its order; None if it is unset.
    """

    gpus: tuple[Gpu, ...] = ()
    driver_version: str | None = None
    cuda_driver_version: tuple[int, int] | None = None
    source: str = "none"
    problem: str = ""
    cuda_visible_devices: str | None = None
    visible: tuple[int, ...] | None = None
    cuda_device_order: str | None = None

    def __post_init__(self) -> None:
        """Refuse positions of no GPU."""
        if not all(0 <= position < len(self.gpus) for position in self.visible or ()):
            raise ValueError("visible names a GPU that gpus does not list")

    @property
    def visible_gpus(self) -> tuple[Gpu, ...]:
        """The GPUs a run can use, in the order it sees them."""
        return self.gpus if self.visible is None else tuple(self.gpus[position] for position in self.visible)


@dataclass(frozen=True)
class Apple:
    """The Apple side of a machine.

    Attributes:
        is_apple_silicon: The hardware is arm64, whatever Python runs on it.
        is_rosetta: This Python is an x86-64 build running translated.
        mps_high_watermark: ``PYTORCH_MPS_HIGH_WATERMARK_RATIO``; None if unset.
    """

    chip: str
    macos_version: tuple[int, int] | None
    is_apple_silicon: bool
    is_rosetta: bool
    unified_memory_bytes: int | None
    gpu_cores: int | None = None
    mps_high_watermark: str | None = None


@dataclass(frozen=True)
class Machine:
    """One machine at one moment; ``mps_available`` is torch's answer, None if it was not asked."""

    system: str  # platform.system(): Linux, Darwin, Windows
    arch: str  # platform.machine() of the running Python
    python_version: str
    cpu_model: str
    cpu_count: int  # what this process may use: affinity and container limits counted in
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    disk_free_bytes: int | None  # of the project's disk
    in_container: bool
    nvidia: Nvidia = field(default_factory=Nvidia)
    apple: Apple | None = None
    mps_available: bool | None = None


def from_mapping(data: Any) -> Machine:
    """Rebuild a machine from its recorded facts.

    Raises:
        ValueError: It is not such a record, or a fact is missing, unknown or of the wrong type; the message names it.
    """
    return recorded.from_mapping(Machine, data, "kit detect --record")


def read(path: Path) -> Machine:
    """Read recorded facts from a file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not JSON, or not a recorded machine.
    """
    return from_mapping(read_object(path))
