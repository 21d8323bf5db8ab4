"""What computes a run, as torch sees it: what decides in which order its sums are taken. Imports torch."""

from __future__ import annotations

import re
from typing import Any

import torch


def describe_compute(platform: str) -> dict[str, Any]:
    """Name the device and what torch computes with, for the receipt.

    Returns:
        ``device``: the GPU's name, ``mps`` or ``cpu``. ``threads``: of the CPU's operations; another number of them
        takes sums in another order. ``cpu_capability``: the instructions torch chose its kernels for. ``blas``,
        ``mkldnn``: what multiplies matrices on a CPU. ``cuda``, ``cudnn``: their versions on a GPU, else None.
    """
    on_cuda = platform in {"h100", "cuda"}
    return {
        "device": torch.cuda.get_device_name() if on_cuda else "mps" if platform == "m4" else "cpu",
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "blas": found[1] if (found := re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())) else None,
        "mkldnn": torch.backends.mkldnn.is_available(),
        "cuda": torch.version.cuda if on_cuda else None,
        "cudnn": torch.backends.cudnn.version() if on_cuda else None,
    }
