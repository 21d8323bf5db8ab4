"""Ask NVIDIA's driver for its GPUs through NVML, if nvidia-ml-py is installed.

Facts only, no judgement. Standard library only, for Python 3.9 and later; nothing here raises or hangs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.cli.screen import one_line
from kit.machine.facts import Gpu, Nvidia
from kit.machine.tools import within

if TYPE_CHECKING:
    from collections.abc import Callable

# Without persistence mode the driver starts up on every call: seconds on a machine with eight GPUs.
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Found:
    """A GPU with its UUID, which is not recorded: it identifies a machine."""

    gpu: Gpu
    uuid: str


@dataclass(frozen=True)
class Report:
    """What one source reported: facts without GPUs, the GPUs, and whether it timed out."""

    nvidia: Nvidia
    found: tuple[Found, ...] = ()
    timed_out: bool = False


def ask_nvml() -> Report | None:
    """Ask NVML; None without nvidia-ml-py or the driver's library."""
    try:
        import pynvml
    except ImportError:
        return None

    def read() -> Report | None:
        try:
            return _read_nvml(pynvml)
        except Exception as exc:  # noqa: BLE001 - a failing driver raises anything
            return Report(Nvidia(source="nvml", problem=f"NVML failed: {_text(exc)}"))

    answers = within(TIMEOUT_S, read)
    if not answers:
        problem = f"NVML did not answer within {TIMEOUT_S:g} s"
        return Report(Nvidia(source="nvml", problem=problem), timed_out=True)
    return answers[0]


def _read_nvml(nvml: Any) -> Report | None:
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as exc:
        if getattr(exc, "value", None) == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            return None
        raise
    problems: list[str] = []
    found: list[Found] = []
    try:
        driver = _try(lambda: _text(nvml.nvmlSystemGetDriverVersion()))
        cuda = _try(lambda: int(nvml.nvmlSystemGetCudaDriverVersion_v2()))
        for index in range(int(nvml.nvmlDeviceGetCount())):
            try:
                found.extend(_read_gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(index), index))
            except nvml.NVMLError as exc:  # noqa: PERF203 - an unreadable GPU must not hide the others; there are few
                problems.append(f"NVML cannot read GPU {index}: {exc}")
    finally:
        _try(nvml.nvmlShutdown)
    return Report(
        Nvidia(
            driver_version=driver,
            # 12020 is CUDA 12.2.
            cuda_driver_version=None if cuda is None else (cuda // 1000, cuda % 1000 // 10),
            source="nvml",
            problem="; ".join(problems),
        ),
        tuple(found),
    )


def _read_gpu(nvml: Any, handle: Any, index: int) -> list[Found]:
    """Return one GPU, or its MIG slices."""
    capability = _try(lambda: tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)))
    mig = _try(lambda: nvml.nvmlDeviceGetMigMode(handle)[0]) == 1
    slices = []
    for number in range((_try(lambda: int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle))) or 0) if mig else 0):
        piece = _try(lambda at=number: nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, at))  # type: ignore[misc]
        if piece is not None:
            slices.append(piece)
    found = []
    for piece in slices or [handle]:
        total, used, reserved = _memory(nvml, piece)
        gpu = Gpu(
            index=index,
            name=_text(nvml.nvmlDeviceGetName(piece)),
            memory_total_bytes=total,
            memory_used_bytes=used,
            compute_capability=None if capability is None else (int(capability[0]), int(capability[1])),
            mig_enabled=mig,
            is_mig_slice=bool(slices),
            memory_reserved_bytes=reserved,
        )
        found.append(Found(gpu, _try(lambda at=piece: _text(nvml.nvmlDeviceGetUUID(at))) or ""))  # type: ignore[misc]
    return found


def _memory(nvml: Any, handle: Any) -> tuple[int, int | None, int | None]:
    """Return total, used and driver-reserved bytes; only version 2 of the call reports the last separately."""
    total = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    second = _try(lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2))
    used = _try(lambda: int(second.used))
    if used is None:
        used = _try(lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used))
    reserved = _try(lambda: max(0, total - int(second.used) - int(second.free)))
    return total, used, reserved


def _try(call: Callable[[], Any]) -> Any:
    """Return a fact, or None if this driver or GPU does not report it."""
    try:
        return call()
    except Exception:  # noqa: BLE001 - NVML raises its own errors, old bindings AttributeError and TypeError
        return None


def _text(value: Any) -> str:
    return one_line(value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value))
