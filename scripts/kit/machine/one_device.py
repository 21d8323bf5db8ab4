"""Leave a process the one device that was judged, and no more of it than was planned with.

Every program that computes calls this before it opens the device: the driver and the allocators read these variables
once. What it starts inherits them, and so does the process that ``--auto-fit`` begins again as. Standard library only,
for Python 3.9 and later.
"""

from __future__ import annotations

import os
import sys

from kit.machine import metal
from kit.machine.cuda_order import DRIVERS_ORDER, ORDER, VISIBLE, chosen_position
from kit.machine.nvidia import probe_with_names


def use_judged_device() -> None:
    """Hide every NVIDIA GPU but the one that detection judges; on a Mac, keep PyTorch within Metal's working set."""
    if sys.platform == "darwin":
        metal.stay_within_working_set(os.environ)
    else:
        os.environ.update(_variables())


def judged_gpu_name() -> str:
    """Name the judged GPU as container engines take it: its UUID, or the driver's number; empty where there is none."""
    return _variables().get(VISIBLE, "")


def _variables() -> dict[str, str]:
    nvidia, names = probe_with_names()
    position = chosen_position(nvidia)
    if position is not None:
        if len(nvidia.gpus) == 1 and not nvidia.gpus[0].is_mig_slice:
            return {VISIBLE: "0"}  # nothing to tell apart
        if names[position]:
            return {VISIBLE: names[position]}
        return {ORDER: DRIVERS_ORDER, VISIBLE: str(nvidia.gpus[position].index)}
    # Where nobody could be asked CUDA may see GPUs all the same: one of them at most.
    return {VISIBLE: "" if nvidia.gpus else os.environ.get(VISIBLE, "0").split(",")[0]}
