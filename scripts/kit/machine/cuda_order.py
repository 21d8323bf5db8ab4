"""Which of several NVIDIA GPUs a run uses, and how CUDA numbers them.

Pure functions over recorded facts. Standard library only, for Python 3.9 and later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.machine.facts import Gpu, Nvidia

VISIBLE, ORDER, DRIVERS_ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PCI_BUS_ID"


def counts_as_the_driver(gpus: Sequence[Gpu], device_order: str | None) -> bool:
    """Tell whether CUDA numbers GPUs as the driver does: set by the variable, or all are of one kind."""
    kinds = {(gpu.name.partition(" MIG ")[0], gpu.compute_capability) for gpu in gpus}
    return device_order == DRIVERS_ORDER or len(kinds) <= 1


def drivers_number(gpus: Sequence[Gpu], device_order: str | None, number: int) -> int | None:
    """Return the driver's number of CUDA's GPU ``number``; None if there is no such GPU.

    CUDA numbers GPUs of different kinds from the fastest down, by an undocumented rule: here by compute capability,
    then memory; equal ones stay in the driver's order.
    """
    if counts_as_the_driver(gpus, device_order):
        return number
    fastest_first = list(dict.fromkeys(gpu.index for gpu in sorted(gpus, key=_speed, reverse=True)))
    return fastest_first[number] if number < len(fastest_first) else None


def chosen_position(nvidia: Nvidia) -> int | None:
    """Return the position in ``gpus`` of the GPU a run uses; None if none is usable."""
    positions = range(len(nvidia.gpus)) if nvidia.visible is None else nvidia.visible
    usable = [at for at in positions if nvidia.gpus[at].is_mig_slice or not nvidia.gpus[at].mig_enabled]
    if not usable:
        return None
    if nvidia.visible is not None or nvidia.cuda_device_order == DRIVERS_ORDER:
        return usable[0]
    return max(usable, key=lambda at: _speed(nvidia.gpus[at]))


def chosen_of(nvidia: Nvidia) -> Gpu | None:
    """Return the GPU a run uses; None if none is usable."""
    position = chosen_position(nvidia)
    return None if position is None else nvidia.gpus[position]


def how_to_choose(nvidia: Nvidia, gpu: Gpu) -> str:
    """Return the variables to put before a command so that it uses this GPU."""
    if gpu.is_mig_slice:
        return f"{VISIBLE}=MIG-…, as nvidia-smi -L names it,"
    surely = "" if counts_as_the_driver(nvidia.gpus, None) else f"{ORDER}={DRIVERS_ORDER} "
    return f"{surely}{VISIBLE}={gpu.index}"


def _speed(gpu: Gpu) -> tuple[tuple[int, int], int]:
    return gpu.compute_capability or (0, 0), gpu.memory_total_bytes
