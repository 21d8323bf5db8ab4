"""What is known of a machine: frozen facts, recorded to JSON and replayed from it.

``kit.machine.probe`` fills them in, ``kit.machine.platforms`` judges them. Sizes are bytes; ``None`` means "unknown".
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from kit.cli.screen import one_line
from kit.files.json_files import read_object

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 1

# The kinds a recorded fact can have, by the annotation of its field.
_KINDS: dict[str, tuple[type, str]] = {
    "str": (str, "a printable text"),
    "int": (int, "a whole number, not negative,"),
    "bool": (bool, "true or false"),
}
_NO_SIZE = 2**63
_Facts = TypeVar("_Facts", "Gpu", "Nvidia", "Apple", "Machine")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, or one MIG slice of it, as the driver reports it.

    Attributes:
        index: The driver's own number; slices carry their GPU's.
        mig_enabled: In MIG mode; without ``is_mig_slice``, no slice has been cut and CUDA sees nothing.
        memory_reserved_bytes: The driver's own, not in ``memory_used_bytes``; None where the two are reported as one.
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
        """What a run can take now; all of it where the use is unknown."""
        return self.memory_total_bytes - (self.memory_used_bytes or 0) - (self.memory_reserved_bytes or 0)


@dataclass(frozen=True)
class Nvidia:
    """The NVIDIA side of a machine.

    Attributes:
        gpus: Every GPU the driver lists, a partitioned one as its MIG slices.
        cuda_driver_version: The newest CUDA the driver supports, as (major, minor).
        source: ``nvml``, ``nvidia-smi`` or ``none``.
        problem: Why NVIDIA's hardware or driver is here but did not answer in full.
        cuda_visible_devices: The environment variable without whole UUIDs, which identify a machine.
        visible: Positions in ``gpus`` that the variable leaves, in its order; None where it restricts nothing.
    """

    gpus: tuple[Gpu, ...] = ()
    driver_version: str | None = None
    cuda_driver_version: tuple[int, int] | None = None
    source: str = "none"
    problem: str = ""
    cuda_visible_devices: str | None = None
    visible: tuple[int, ...] | None = None
    cuda_device_order: str | None = None

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
        mps_high_watermark: ``PYTORCH_MPS_HIGH_WATERMARK_RATIO``; None where it is not set.
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
    """One machine at one moment; ``mps_available`` is torch's answer, None where it was not asked."""

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


def to_json(machine: Machine) -> str:
    """Serialise a machine's facts; ``from_mapping`` reads them back."""
    return json.dumps({"schema_version": SCHEMA_VERSION, "machine": asdict(machine)}, indent=2) + "\n"


def from_mapping(data: Any) -> Machine:
    """Rebuild a machine from its recorded facts.

    Raises:
        ValueError: It is no such record, or a fact is missing, unknown or of another kind; the message names it.
    """
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION or "machine" not in data:
        raise ValueError(f"not a machine recorded with `kit detect --record` (schema_version {SCHEMA_VERSION})")
    return _build(Machine, data["machine"], "machine")


def nvidia_from(recorded: Any) -> Nvidia:
    """Rebuild the NVIDIA side of a recorded machine.

    Raises:
        ValueError: A fact is missing, unknown or of another kind; the message names it.
    """
    return _build(Nvidia, recorded, "machine.nvidia")


def read(path: Path) -> Machine:
    """Read recorded facts from a file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not JSON, or not a recorded machine.
    """
    return from_mapping(read_object(path))


def _build(cls: type[_Facts], data: Any, where: str) -> _Facts:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is {_shown(data)}; a JSON object is needed")  # noqa: TRY004 - the record is at fault
    known = {item.name: item for item in fields(cls)}
    for name in data:
        if name not in known:
            raise ValueError(f"{where}.{name} is no fact of a machine; known are {', '.join(known)}")
    values: dict[str, Any] = {}
    for name, item in known.items():
        if name in data:
            values[name] = _value(str(item.type), data[name], f"{where}.{name}")
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"{where}.{name} is missing")
    gpu_count = len(values.get("gpus", ()))
    if cls is Nvidia and not all(0 <= position < gpu_count for position in values.get("visible") or ()):
        raise ValueError(f"{where}.visible names a GPU that {where}.gpus does not list")
    return cls(**values)


def _value(kind: str, value: Any, where: str) -> Any:
    """Check one fact against its field's annotation, which ``from __future__ import annotations`` keeps as text."""
    optional = kind.endswith(" | None")
    if optional and value is None:
        return None
    kind = kind[: -len(" | None")] if optional else kind
    if kind == "Nvidia":
        return _build(Nvidia, value, where)
    if kind == "Apple":
        return _build(Apple, value, where)
    if kind.startswith("tuple"):
        if not isinstance(value, list) or (kind == "tuple[int, int]" and len(value) != 2):  # noqa: PLR2004 - a pair
            raise ValueError(f"{where} is {_shown(value)}; a list is needed, of two numbers for a version")
        if kind == "tuple[Gpu, ...]":
            return tuple(_build(Gpu, item, f"{where}[{position}]") for position, item in enumerate(value))
        return tuple(_value("int", item, f"{where}[{position}]") for position, item in enumerate(value))
    needed, words = _KINDS[kind]
    is_number = type(value) is int and 0 <= value < _NO_SIZE
    # What cannot be printed would reach the terminal as it is.
    is_text = isinstance(value, str) and value == one_line(value)
    if not {int: is_number, str: is_text, bool: isinstance(value, bool)}[needed]:
        raise ValueError(f"{where} is {_shown(value)}; {words} is needed")
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value)
    limit = 40
    return text if len(text) <= limit else text[: limit - 1] + "…"
