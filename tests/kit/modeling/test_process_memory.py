"""What is counted is what the process needs: files it has mapped are not, and a peak nobody waited for is."""

from __future__ import annotations

import gc
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch", reason="needs the libraries: make setup")

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from kit.modeling.process_memory import PeakSampler, own_bytes
from kit.train import rehearsal
from kit.train.saving import MemoryMeter

if TYPE_CHECKING:
    from pathlib import Path

MB = 10**6
LARGE = 300 * MB


def _threads() -> int:
    return sum(thread.name == "memory" for thread in threading.enumerate())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells mapped files apart")
def test_weights_that_are_mapped_from_their_file_are_not_counted(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(LARGE // 4)}, tmp_path / "model.safetensors")
    gc.collect()
    meter = MemoryMeter("cpu")
    before, standing = meter.read(), rehearsal.in_use_bytes("cpu")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        weight = file.get_tensor("weight")
        assert float(weight.sum()) == 0  # every page was touched
        assert meter.read() - before < 50 * MB
        assert rehearsal.in_use_bytes("cpu") - standing < 50 * MB
        assert meter.peak() - before < 50 * MB
        del weight
    meter.close()


def test_a_large_tensor_that_is_gone_again_was_seen() -> None:
    meter = MemoryMeter("cpu")
    before = meter.read()
    torch.ones(LARGE // 4).add_(1)
    assert meter.read() - before > 0.8 * LARGE
    assert own_bytes() - before < 0.2 * LARGE
    assert meter.read() - before < 0.2 * LARGE  # since the last reading
    assert meter.peak() - before > 0.8 * LARGE
    meter.close()
    assert meter.peak() - before > 0.8 * LARGE


def test_what_the_process_holds_is_in_use_and_part_of_its_room() -> None:
    before = rehearsal.in_use_bytes("cpu")
    held = torch.ones(LARGE // 4)
    assert rehearsal.in_use_bytes("cpu") - before > 0.8 * LARGE
    assert rehearsal.room_bytes("cpu") > rehearsal.in_use_bytes("cpu")
    del held


def test_its_thread_ends_with_it_and_with_whoever_forgot_it() -> None:
    before = _threads()
    sampler = PeakSampler()
    assert _threads() == before + 1
    sampler.close()
    assert _threads() == before
    forgotten = PeakSampler()
    del forgotten
    gc.collect()
    deadline = time.monotonic() + 10
    while _threads() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _threads() == before
