"""Leave a process the one device that was judged, and no more of it than was planned with.

Every program that computes calls this before it opens the device: the driver and the allocators read these variables
once. What it starts inherits them, and so does the process that ``--auto-fit`` begins again as. Standard library only,
for Python 3.9 and later.
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

# torch's variable, and the newer name for it.
ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
# With rows of many lengths torch's allocator held 84 of an H100's 85 GB for 57 GB in use, in pieces that fitted
# nothing, and steps became slow. Not measured with it yet.
_GROWING = "expandable_segments:True"


def use_judged_device() -> None:
    """Hide every NVIDIA GPU but the one that detection judges; on a Mac, keep PyTorch within Metal's working set.

    Where that is known to help on a GPU, torch's allocator grows its segments, unless its variable is set.
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
    # Of transformers alone: all that kit.stacks.stack looks at is not for the Python a machine came with.
    try:
        installed = metadata.version("transformers")
    except metadata.PackageNotFoundError:
        return False
    return bool(version_tuple(installed)) and generation_of("", {"transformers": installed}).traits.grows_allocator


def judged_gpu_name() -> str:
    """Name the judged GPU as container engines take it: its UUID, or the driver's number; empty where there is none."""
    return _variables()[0].get(VISIBLE, "")


def _variables() -> tuple[dict[str, str], bool]:
    """Return what leaves CUDA the judged GPU, and whether there is one."""
    nvidia, names = probe_with_names()
    position = chosen_position(nvidia)
    if position is None:
        # Where nobody could be asked CUDA may see GPUs all the same: one of them at most.
        return {VISIBLE: "" if nvidia.gpus else os.environ.get(VISIBLE, "0").split(",")[0]}, False
    if len(nvidia.gpus) == 1 and not nvidia.gpus[0].is_mig_slice:
        return {VISIBLE: "0"}, True  # nothing to tell apart
    if names[position]:
        return {VISIBLE: names[position]}, True
    return {ORDER: DRIVERS_ORDER, VISIBLE: str(nvidia.gpus[position].index)}, True
