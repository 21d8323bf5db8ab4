"""Measure one variant in a process of its own, which may run out of memory or patch its libraries without harm.

Started by ``scripts/benchmark.py``: ``python -m kit.bench.one_row SPEC.json``. Writes its result as one JSON object to
the path the specification names. Imports torch.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from kit.bench.bottleneck import Kernel, summarise
from kit.bench.random_base import write_random_base
from kit.bench.variants import BASE, BASELINE, CEILING, SCALES, VARIANTS, Scale, Variant, overrides, rows_of
from kit.config.resolve import resolve
from kit.interpreter import PROJECT_ROOT
from kit.run.plan import make_plan

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.run.plan import TrainingPlan

PROFILED = 3  # steps
CONFIG = PROJECT_ROOT / "configs" / "training_config_h100.yaml"


class _StepClock(TrainerCallback):  # type: ignore[misc]
    """Notes when each optimizer step has really ended on the device."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.ends: list[float] = []

    def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
        self._note()

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        self._note()

    def _note(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def measure_ceiling(device: str, seconds: float = 1.0) -> dict[str, float]:
    """Measure the rate of one large matrix product of random numbers, in operations a second."""
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
    return {"matmul_flop_per_second": 2 * size**3 / statistics.median(times[2:])}


class StepProfiler(TrainerCallback):  # type: ignore[misc]
    """Records what the steps after the warm-up consist of."""

    def __init__(self, device: str, warm_up: int) -> None:
        """Record ``PROFILED`` steps after ``warm_up``, on ``cuda`` what the GPU does."""
        self.device, self.warm_up = device, warm_up
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
        elif self.done == self.warm_up + PROFILED:
            self.seconds = time.perf_counter() - self.began
            self.profiler.stop()

    def operator_calls(self) -> float:
        """Return how many of torch's operators a step called."""
        calls = sum(event.count for event in self.profiler.key_averages() if event.key.startswith("aten::"))
        return float(calls) / PROFILED

    def summary(self) -> dict[str, Any]:
        """Return what the recorded steps consist of; see ``kit.bench.bottleneck.summarise``."""
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
        return summarise(kernels, self.seconds, PROFILED)


def profile(variant: Variant, workload: str, scale: Scale, base: Path, device: str) -> dict[str, Any]:
    """Train a few steps under torch's profiler and return what their time went into."""
    profiler = StepProfiler(device, scale.warm_up)
    with tempfile.TemporaryDirectory() as output:
        trainer, _, _ = _trainer(variant, workload, scale, base, device, profiler, output)
        trainer.train()
    return {"variant": variant.name, "workload": workload, **profiler.summary()}


def measure(variant: Variant, workload: str, scale: Scale, base: Path, device: str) -> dict[str, Any]:
    """Train a few steps and return the median step's milliseconds, tokens a second and the peak memory."""
    clock = _StepClock(device)
    with tempfile.TemporaryDirectory() as output:
        trainer, attention, plan = _trainer(variant, workload, scale, base, device, clock, output)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    steps = [end - begin for begin, end in zip(clock.ends, clock.ends[1:], strict=False)][scale.warm_up :]
    tokens = plan.tokens[-1] - plan.tokens[scale.warm_up - 1]
    return {
        "variant": variant.name,
        "workload": workload,
        "attention": attention,
        "milliseconds_per_step": 1000 * statistics.median(steps),
        "tokens_per_second": tokens / sum(steps),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "last_loss": float(trainer.state.log_history[-1].get("train_loss", float("nan"))),
    }


def _trainer(  # noqa: PLR0913, PLR0917 - what a measurement is told
    variant: Variant, workload: str, scale: Scale, base: Path, device: str, callback: Any, output: str
) -> tuple[Any, str, TrainingPlan]:
    settings, plan = settings_and_plan(variant, workload, scale, base, device)
    if variant.name == BASELINE:
        return (*build_trl(settings, plan, device, [callback], output), plan)
    return (*build_kit(settings, plan, device, [callback]), plan)


def settings_and_plan(
    variant: Variant, workload: str, scale: Scale, base: Path, device: str
) -> tuple[Settings, TrainingPlan]:
    """Return what a variant is told, and the rows and steps it trains."""
    changes = {"model.model_name_or_path": str(base), **overrides(variant, workload, scale, on_cuda=device == "cuda")}
    settings = resolve(CONFIG, changes).settings
    return settings, make_plan(settings, rows_of(workload, scale))


def build_kit(settings: Settings, plan: TrainingPlan, device: str, callbacks: list[Any]) -> tuple[Any, str]:
    """Build the kit's trainer as a run of it does; return it with its attention kernel's name."""
    from kit.stack import installed_stack
    from kit.stack.model import attach_adapter, load_base_model
    from kit.stack.trainer import build_trainer

    platform = "h100" if device == "cuda" else "cpu"
    model = attach_adapter(load_base_model(settings, platform), settings)
    attention = installed_stack().attention_of(settings, platform)
    return build_trainer(model, settings, plan, platform, callbacks), attention


def build_trl(
    settings: Settings, plan: TrainingPlan, device: str, callbacks: list[Any], output: str
) -> tuple[Any, str]:
    """Build what ``trl sft --use_peft --load_in_4bit`` builds, told only the model, the rows and the batch."""
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    on_cuda = device == "cuda"
    dtype = torch.bfloat16 if on_cuda else torch.float32
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    folder = settings.model.model_name_or_path
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        quantization_config=quantization,
        device_map={"": "cuda:0" if on_cuda else "cpu"},
        use_safetensors=True,
    )
    arguments = trl.SFTConfig(
        output_dir=output,
        per_device_train_batch_size=settings.training.per_device_train_batch_size,
        gradient_accumulation_steps=settings.training.gradient_accumulation_steps,
        max_steps=plan.steps,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",  # the rows both sides take in the same steps
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=not on_cuda,
        bf16=on_cuda,
    )
    columns = {"input_ids": [row.input_ids for row in plan.rows], "labels": [row.labels for row in plan.rows]}
    lora = LoraConfig(
        r=settings.lora.r,
        lora_alpha=settings.lora.lora_alpha,
        lora_dropout=settings.lora.lora_dropout,
        target_modules=list(settings.lora.target_modules),
        task_type="CAUSAL_LM",
    )
    trainer = trl.SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(columns).select([index for index in plan.order if index >= 0]),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=lora,
        callbacks=callbacks,
    )
    return trainer, str(model.config._attn_implementation)  # noqa: SLF001 - what transformers chose, for the table


def main(argv: list[str]) -> int:
    """Measure what the specification says and write the result."""
    spec = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    result: dict[str, Any]
    if spec["variant"] == CEILING:
        result = measure_ceiling(spec["device"])
    elif spec["variant"] == BASE:
        dtype = torch.bfloat16 if spec["device"] == "cuda" else torch.float32
        write_random_base(SCALES[spec["scale"]].shape, Path(spec["base"]), dtype=dtype, device=spec["device"])
        result = {}
    else:
        scale = SCALES[spec["scale"]]
        variant = next(item for item in VARIANTS if item.name == spec["variant"])
        work = profile if spec.get("profile") else measure
        result = work(variant, spec["workload"], scale, Path(spec["base"]), spec["device"])
    Path(spec["result"]).write_text(json.dumps(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
