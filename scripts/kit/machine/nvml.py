"""Ask NVIDIA's driver for its GPUs through NVML, where nvidia-ml-py is installed.

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
    """A GPU with the name CUDA_VISIBLE_DEVICES may call it by, which is not kept: it identifies a machine."""

    gpu: Gpu
    uuid: str


@dataclass(frozen=True)
class Report:
    """What one source said: facts without GPUs, the GPUs, and whether it was given up on."""

    nvidia: Nvidia
    found: tuple[Found, ...] = ()
    timed_out: bool = False


def ask_nvml() -> Report | None:
    """Ask NVML; None where nvidia-ml-py or the driver's library is not there."""
    try:
        import pynvml
    except ImportError:
        return None

    def read() -> Report | None:
        try:
            return _read_nvml(pynvml)
        except Exception as exc:  # noqa: BLE001 - a driver in trouble raises anything
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
            except nvml.NVMLError as exc:  # noqa: PERF203 - a GPU that cannot be read hides no other; there are few
                problems.append(f"NVML cannot read GPU {index}: {exc}")
    finally:
        _try(nvml.nvmlShutdown)
    return Report(
        Nvidia(
            driver_version=driver,
            # NVML counts 12020 for CUDA 12.2.
            cuda_driver_version=None if cuda is None else (cuda // 1000, cuda % 1000 // 10),
            source="nvml",
            problem="; ".join(problems),
        ),
        tuple(found),
    )


def _read_gpu(nvml: Any, handle: Any, index: int) -> list[Found]:
    """Return one GPU, or the MIG slices it is cut into."""
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
    """Bytes in all, held by programs, and kept by the driver, which only the second form of the call tells apart.

    What is left of the whole is then the ``free`` that NVML itself gives.
    """
    total = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    second = _try(lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2))
    used = _try(lambda: int(second.used))
    if used is None:
        used = _try(lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used))
    reserved = _try(lambda: max(0, total - int(second.used) - int(second.free)))
    return total, used, reserved


def _try(call: Callable[[], Any]) -> Any:
    """Return a fact, or None where this driver or this GPU does not know it."""
    try:
        return call()
    except Exception:  # noqa: BLE001 - NVML raises its own errors, old bindings AttributeError and TypeError
        return None


def _text(value: Any) -> str:
    return one_line(value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value))
