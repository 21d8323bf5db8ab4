"""What no tensor takes: CUDA's context, cuBLAS's workspaces, and on a CPU the libraries and the C library's heap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.plan.activations import saved_by_layer

if TYPE_CHECKING:
    from kit.plan.step import TrainingStep

# The driver's context and the kernels: 804 to 808 MB where the H100 of measurements/ trains.
_CONTEXT = 810_000_000
# torch gives each cuBLAS handle a workspace, and has a handle for the forward and one for the backward thread:
# getChosenWorkspaceSize in ATen/cuda, where CUBLAS_WORKSPACE_CONFIG is not set.
_HANDLES = 2
_LARGE_WORKSPACE, _WORKSPACE = 4_096 * 8 * 1_024, (4_096 * 2 + 16 * 8) * 1_024
_LARGE_ON = (9, 0)
# The libraries on a CPU: their own memory, 0.54 GB once a trainer is built and 0.1 in the course of a step, and the
# files they map.
_LIBRARIES, _MAPPED = 640_000_000, 560_000_000
PROCESS_BYTES = _LIBRARIES + _MAPPED
# On a CPU the C library holds on to what is freed between blocks that live: measured in training runs of 3 to 30
# layers, this share of the activations. A block from 32 MiB on is mapped, and given back (mallopt(3)).
_HEAP_SHARE = 0.6
_MAPPED_FROM = 32 * 1_024**2


@dataclass(frozen=True)
class Term:
    """One part of the peak: what it is, and its size in bytes."""

    name: str
    size_bytes: int


@dataclass(frozen=True)
class Source:
    """Where a part of the figures comes from.

    Attributes:
        origin: Measured on which device, read in whose source, or assumed.
    """

    part: str
    origin: str


def workspace_bytes(job: TrainingStep) -> int:
    """Return cuBLAS's workspaces, which torch's allocator gives out; the larger where the GPU does not tell."""
    if job.device != "cuda":
        return 0
    return _HANDLES * (_LARGE_WORKSPACE if job.capability in {None, _LARGE_ON} else _WORKSPACE)


def process_terms(job: TrainingStep) -> tuple[Term, ...]:
    """Return what a process takes before any model, where its figure includes that."""
    return (Term("libraries", _LIBRARIES),) if job.device == "cpu" else ()


def unseen_terms(job: TrainingStep) -> tuple[Term, ...]:
    """Return what a run's own figure leaves out."""
    if job.device == "cuda":
        return (Term("CUDA context", _CONTEXT),)
    return (Term("mapped files of the libraries", _MAPPED),) if job.device == "cpu" else ()


def heap_bytes(job: TrainingStep, activations: int) -> int:
    """Return what a CPU's allocator keeps of freed memory, which is too fragmented to return."""
    if job.device != "cpu":
        return 0
    sizes = [item.size_bytes for item in saved_by_layer(job)]
    small = sum(size for size in sizes if size < _MAPPED_FROM) / sum(sizes)
    return round(_HEAP_SHARE * small * activations)


def sources(job: TrainingStep) -> tuple[Source, ...]:
    """Return where the figures of a peak come from."""
    if job.device == "mps":
        return (Source("tensors", "arithmetic from the libraries' source; not measured on a Mac"),)
    if job.device == "cpu":
        return (
            Source("tensors", "arithmetic; within 5 % of what torch's profiler counts of small models on a CPU"),
            Source("libraries, freed blocks", "measured in runs on Linux with glibc"),
        )
    size = f"{workspace_bytes(job) / _HANDLES / 1_024**2:.3g} MiB each"
    which = "for an unknown compute capability"
    if job.capability:
        which = f"for compute capability {job.capability[0]}.{job.capability[1]}"
    met = "confirmed on an H100" if job.capability == _LARGE_ON else "not measured"
    return (
        Source("tensors", f"arithmetic; {job.stack.held_to}"),
        Source("cuBLAS workspaces", f"torch's source, {size} {which}; {met}"),
        Source("CUDA context", "measured on an H100 80GB HBM3: driver 580.159.04, CUDA 13.0, torch 2.11"),
    )
