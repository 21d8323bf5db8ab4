"""What is read off a device: the ends of steps, what they consist of, and its best rates. Imports torch."""

from __future__ import annotations

import os
import statistics
import time
from itertools import pairwise
from typing import Any

import torch
from transformers import TrainerCallback

from bench.bottleneck import Kernel, summarise
from kit.machine.energy import EnergyMeter
from kit.machine.probe import probe
from kit.train.timed_updates import UpdateClock

PROFILED = 3  # steps
_COPIES = 30


class StepClock(UpdateClock):
    """Notes when each optimizer step has really ended on the device, and the energy used from the warm-up's end on."""

    def __init__(self, device: str, warm_up: int) -> None:
        """Time on ``cuda`` or ``cpu`` the steps after ``warm_up``."""
        super().__init__(device)
        self.device, self.warm_up = device, warm_up
        self._meter: EnergyMeter | None = None
        self.joules: float | None = None

    @property
    def step_seconds(self) -> list[float]:
        """Seconds of each timed step."""
        return [end - begin for begin, end in pairwise(self.ends)][self.warm_up :]

    def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
        """Begin."""
        self.note()

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Note a step's end."""
        self.note()
        if len(self.ends) == self.warm_up + 1 and self.device == "cuda":
            self._meter = EnergyMeter(probe(), "cuda")
            self.ends[-1] = time.perf_counter()

    def on_train_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Read the energy."""
        self.joules = self._meter.read() if self._meter else None


def measure_ceiling(device: str, seconds: float = 1.0) -> dict[str, Any]:
    """Measure the rate of one large matrix product of random numbers, and of copying memory on the device.

    Returns:
        ``matmul_flop_per_second``, and ``copy_bytes_per_second`` with bytes read and written both counted.
    """
    size = 8192 if device == "cuda" else 512
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - began < seconds:  # noqa: PLR2004 - at least a few
        start = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    del left, right
    source = torch.randn(size, size, device=device)
    target, copies = torch.empty_like(source), []
    for _ in range(_COPIES):
        start = time.perf_counter()
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()
        copies.append(time.perf_counter() - start)
    return {
        "matmul_flop_per_second": 2 * size**3 / statistics.median(times[2:]),
        "matmul_seconds": times,
        "copy_bytes_per_second": 2 * source.nbytes / statistics.median(copies[2:]),
    }


class StepProfiler(TrainerCallback):  # type: ignore[misc]
    """Records what the steps after the warm-up consist of."""

    def __init__(self, device: str, warm_up: int, steps: int = PROFILED) -> None:
        """Record ``steps`` steps after ``warm_up``, on ``cuda`` what the GPU does."""
        self.device, self.warm_up, self.steps = device, warm_up, steps
        self.done, self.began, self.seconds = 0, 0.0, 0.0
        if device != "cuda":
            os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # it calls it an error that there is no GPU
        activity = torch.profiler.ProfilerActivity
        kinds = [activity.CPU, activity.CUDA] if device == "cuda" else [activity.CPU]
        self.profiler = torch.profiler.profile(activities=kinds, acc_events=True)

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Begin after the warm-up, and end where enough is recorded."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.done += 1
        if self.done == self.warm_up:
            self.profiler.start()
            self.began = time.perf_counter()
        elif self.done == self.warm_up + self.steps:
            self.seconds = time.perf_counter() - self.began
            self.profiler.stop()

    def operator_calls(self) -> float:
        """Return how many of torch's operators a step called."""
        calls = sum(event.count for event in self.profiler.key_averages() if event.key.startswith("aten::"))
        return float(calls) / self.steps

    def summary(self) -> dict[str, Any]:
        """Return what the recorded steps consist of; see ``bench.bottleneck.summarise``."""
        # A label laid over other work, such as the optimizer's on a GPU, would count it twice.
        events = [event for event in self.profiler.key_averages() if not event.is_user_annotation]
        if self.device == "cuda":
            on_device = torch.autograd.DeviceType.CUDA
            events = [event for event in events if event.device_type == on_device]
            times = [event.self_device_time_total for event in events]
        else:
            times = [event.self_cpu_time_total for event in events]
        kernels = [
            Kernel(event.key, microseconds / 1e6, event.count)
            for event, microseconds in zip(events, times, strict=True)
            if microseconds
        ]
        return summarise(kernels, self.seconds, self.steps)
