"""What computes a run, as torch sees it: what decides in which order its sums are taken. Imports torch."""

from __future__ import annotations

import os
import re
from typing import Any

import torch

from kit.config.platforms import CUDA_PLATFORMS
from kit.machine.one_device import ALLOCATOR

# They have a library take other kernels, or round otherwise, than it would by itself. No secret is in them.
_VARIABLES = (
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "OPENBLAS_CORETYPE"),
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_MPS_FAST_MATH"),
)


def describe_compute(platform: str) -> dict[str, Any]:
    """Name the device and what torch computes with, for the receipt.

    Returns:
        ``device``: the GPU's name, ``mps`` or ``cpu``. ``threads``: of the CPU's operations; another number of them
        takes sums in another order. ``cpu_capability``: the instructions torch chose its kernels for. ``blas``,
        ``mkldnn``: what multiplies matrices on a CPU. ``variables``: of the environment, by which kernels are chosen or
        sums rounded otherwise; ``none`` where none is set. ``cuda``, ``cudnn``: their versions on a GPU, else None.
        ``allocator``: what torch's is allocator on a GPU; ``none`` where nothing, None elsewhere. It changes no sum.
    """
    on_cuda = platform in CUDA_PLATFORMS
    allocator = " ".join(f"{name}={os.environ[name]}" for name in ALLOCATOR if os.environ.get(name)) or "none"
    return {
        "device": torch.cuda.get_device_name() if on_cuda else "mps" if platform == "m4" else "cpu",
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "blas": found[1] if (found := re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())) else None,
        "mkldnn": torch.backends.mkldnn.is_available(),
        "variables": " ".join(f"{name}={os.environ[name]}" for name in _VARIABLES if os.environ.get(name)) or "none",
        "cuda": torch.version.cuda if on_cuda else None,
        "cudnn": torch.backends.cudnn.version() if on_cuda else None,
        "allocator": allocator if on_cuda else None,
    }
