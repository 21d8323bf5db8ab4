"""A base read as a run reads it: safetensors on the disk, quantised on the device. Imports torch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from bench.random_base import write_random_base
from bench.steps import CONFIG
from bench.variants import KIT, VARIANTS, overrides
from kit.config.resolve import resolve
from kit.modeling.model import load_base_model

if TYPE_CHECKING:
    from pathlib import Path

    from bench.variants import Scale


def load(scale: Scale, device: str, folder: Path) -> dict[str, Any]:
    """Write a random base where there is none, and load it.

    Returns:
        ``write_seconds``, ``load_seconds``, ``file_bytes``, and on CUDA the peak and what stands afterwards.
    """
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    began = time.perf_counter()
    write_random_base(scale.shape, folder, dtype=dtype, device=device)
    written = time.perf_counter()
    variant = next(item for item in VARIANTS if item.name == KIT)
    changes = {"model.model_name_or_path": str(folder), **overrides(variant, "full", scale, on_cuda=device == "cuda")}
    load_base_model(resolve(CONFIG, changes).settings, "h100" if device == "cuda" else "cpu")
    on_cuda = device == "cuda"
    if on_cuda:
        torch.cuda.synchronize()
    return {
        "write_seconds": written - began,
        "load_seconds": time.perf_counter() - written,
        "file_bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if on_cuda else None,
        "standing_bytes": torch.cuda.memory_allocated() if on_cuda else None,
    }
