"""Restrict a process to the device that detection chose, and its memory to what was planned.

Every program that computes calls this before it opens the device: the driver and the allocators read these variables
once. Child processes inherit them, and so does the process that ``--auto-fit`` restarts as. Standard library only, for
Python 3.9 and later.
"""

from __future__ import annotations

import os
import sys
from importlib import metadata

from kit.machine import metal
from kit.machine.cuda_order import DRIVERS_ORDER, ORDER, VISIBLE, chosen_position
from kit.machine.nvidia import probe_with_names
from kit.stacks.generation import version_tuple
from kit.stacks.registry import generation_of

# torch's variable, and its newer name.
ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
# With rows of many lengths torch's allocator reserved 84 of an H100's 85 GB for 57 GB in use, fragmented, and steps
# became slow. Not yet measured with this setting.
_GROWING = "expandable_segments:True"


def use_judged_device() -> None:
    """Hide every NVIDIA GPU but the one that detection chose; on a Mac, keep PyTorch within Metal's working set.

    On a GPU, where that is known to help, torch's allocator gets expandable segments, unless its variable is set.
    """
    if sys.platform == "darwin":
        metal.stay_within_working_set(os.environ)
    else:
        visible, has_gpu = _variables()
        os.environ.update(visible)
        is_told = any(name in os.environ for name in ALLOCATOR)
        if has_gpu and not is_told and _grows_allocator():
            os.environ[ALLOCATOR[0]] = _GROWING


def _grows_allocator() -> bool:
    # From transformers alone: kit.stacks.stack does not run on Python 3.9.
    try:
        installed = metadata.version("transformers")
    except metadata.PackageNotFoundError:
        return False
    return bool(version_tuple(installed)) and generation_of("", {"transformers": installed}).traits.grows_allocator


def judged_gpu_name() -> str:
    """Return the chosen GPU as container engines name it: its UUID or the driver's number; empty for none."""
    return _variables()[0].get(VISIBLE, "")


def _variables() -> tuple[dict[str, str], bool]:
    """Return the variables that leave CUDA the chosen GPU, and whether there is one."""
    nvidia, names = probe_with_names()
    position = chosen_position(nvidia)
    if position is None:
        # Without NVML and nvidia-smi CUDA may still see GPUs: leave it one at most.
        return {VISIBLE: "" if nvidia.gpus else os.environ.get(VISIBLE, "0").split(",")[0]}, False
    if len(nvidia.gpus) == 1 and not nvidia.gpus[0].is_mig_slice:
        return {VISIBLE: "0"}, True
    if names[position]:
        return {VISIBLE: names[position]}, True
    return {ORDER: DRIVERS_ORDER, VISIBLE: str(nvidia.gpus[position].index)}, True
