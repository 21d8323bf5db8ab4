"""What decides in which order sums are taken is named, and nothing else of the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.modeling import compute
from kit.modeling.compute import describe_compute

if TYPE_CHECKING:
    import pytest


def test_what_has_a_library_take_other_kernels_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was resumed with MKL_CBWR=COMPATIBLE was another adapter, without a word."""
    for name in ("MKL_CBWR", "NVIDIA_TF32_OVERRIDE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_SECRET_TOKEN", "x")
    assert describe_compute("cpu")["variables"] == "none"
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    assert describe_compute("cpu")["variables"] == "MKL_CBWR=COMPATIBLE NVIDIA_TF32_OVERRIDE=1"


def test_what_the_allocator_is_told_is_named_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute.torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    assert describe_compute("cuda")["allocator"] == "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
    assert describe_compute("cpu")["allocator"] is None
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF")
    assert describe_compute("cuda")["allocator"] == "none"
