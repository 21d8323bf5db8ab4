"""Train a few steps of one variant and time them, or profile them. Imports torch."""

from __future__ import annotations

import os
import statistics
import tempfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench.clocks import PROFILED, StepClock, StepProfiler
from bench.variants import BASELINE, overrides, rows_of
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.data.batch_order import order_batches
from kit.machine.one_device import ALLOCATOR
from kit.machine.platforms import judge
from kit.machine.probe import probe
from kit.plan.measured import described
from kit.plan.padding_free import decided
from kit.plan.step import TrainingStep
from kit.plan.time import flop_of
from kit.plan.workload import count
from kit.stacks.stack import installed_stack

if TYPE_CHECKING:
    from pathlib import Path

    from bench.variants import Scale, Variant
    from kit.config.settings import Settings
    from kit.data.batch_order import BatchOrder

CONFIG = PROJECT_ROOT / "configs" / "training_config_h100.yaml"


@dataclass(frozen=True)
class Base:
    """What is trained on.

    Attributes:
        folder: Where its configuration and tokenizer lie, and its weights if ``model`` is None.
        model: The base, borrowed (``kit.modeling.resident``); None to load it.
    """

    folder: Path
    model: Any = None


def profile_steps(variant: Variant, workload: str, scale: Scale, device: str, base: Base) -> dict[str, Any]:
    """Train a few steps under torch's profiler and return what their time went into."""
    # One step of a 7B model on ragged rows is half a million events, which take a minute to read.
    profiler = StepProfiler(device, scale.warm_up, 1 if device == "cuda" else PROFILED)
    small = replace(scale, steps=profiler.steps)
    with tempfile.TemporaryDirectory() as output:
        trainer, _, _ = _trainer(variant, workload, small, device, base, profiler, output)
        trainer.train()
    return {"variant": variant.name, "workload": workload, **profiler.summary()}


def time_steps(variant: Variant, workload: str, scale: Scale, device: str, base: Base) -> dict[str, Any]:
    """Train a few steps and return their times, tokens a second, energy, loss and peak memory."""
    clock = StepClock(device, scale.warm_up)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as output:
        trainer, settings, plan = _trainer(variant, workload, scale, device, base, clock, output)
        trainer.train()
    steps = clock.step_seconds
    attention = str(trainer.model.config._attn_implementation)  # noqa: SLF001 - what really ran
    tokens = plan.tokens[-1] - plan.tokens[scale.warm_up - 1]
    return {
        "attention": attention,
        **({} if variant.name == BASELINE else _described(settings, plan, scale, device, attention)),
        "rows_at_once": settings.training.per_device_train_batch_size,
        "accumulation": settings.training.gradient_accumulation_steps,
        "step_seconds": steps,
        "timed_tokens": tokens,
        "milliseconds_per_step": 1000 * statistics.median(steps),
        "tokens_per_second": tokens / sum(steps),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "reserved_memory_bytes": torch.cuda.max_memory_reserved() if device == "cuda" else None,
        "joules": clock.joules,
        "allocator": next((os.environ[name] for name in ALLOCATOR if os.environ.get(name)), ""),
        "train_loss": float(trainer.state.log_history[-1].get("train_loss", float("nan"))),
    }


def _described(settings: Settings, plan: BatchOrder, scale: Scale, device: str, attention: str) -> dict[str, Any]:
    """Say what a kit run's speed holds for, of the steps that are timed, so that a plan finds it."""
    work = count(
        np.asarray(plan.order)[scale.warm_up * settings.effective_batch_size :],
        plan.rows.lengths,
        plan.rows.trained,
        settings,
    )
    apart = settings.training.gradient_checkpointing_every_n_layers
    job = TrainingStep(scale.shape, settings, installed_stack().traits, device, attention, work.largest[0], apart)
    return described(job, work, flop_of(job, work))


def _trainer(  # noqa: PLR0913, PLR0917 - a measurement's arguments
    variant: Variant, workload: str, scale: Scale, device: str, base: Base, callback: Any, output: str
) -> tuple[Any, Settings, BatchOrder]:
    settings, plan = settings_and_plan(variant, workload, scale, base.folder, device)
    if variant.name == BASELINE:
        return build_trl(settings, plan, device, [callback], output, base.model), settings, plan
    return build_kit(settings, plan, device, [callback], base.model), settings, plan


def settings_and_plan(
    variant: Variant, workload: str, scale: Scale, base: Path, device: str
) -> tuple[Settings, BatchOrder]:
    """Return a variant's settings, and the rows and steps it trains."""
    changes = {"model.model_name_or_path": str(base), **overrides(variant, workload, scale, on_cuda=device == "cuda")}
    rows = rows_of(workload, scale)
    settings = decided(resolve(CONFIG, changes), judge(probe()), installed_stack(), rows).settings
    return settings, order_batches(settings, rows)


def build_kit(settings: Settings, plan: BatchOrder, device: str, callbacks: list[Any], base: Any = None) -> Any:
    """Build the kit's trainer as a run of it does, on a base that is there already if one is given."""
    from kit.modeling.model import attach_adapter, load_base_model
    from kit.train.trainer import build_trainer

    platform = "h100" if device == "cuda" else "cpu"
    model = load_base_model(settings, platform) if base is None else base
    return build_trainer(attach_adapter(model, settings), settings, plan, platform, callbacks)


def build_trl(  # noqa: PLR0913, PLR0917 - a measurement's arguments
    settings: Settings, plan: BatchOrder, device: str, callbacks: list[Any], output: str, base: Any = None
) -> Any:
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
    model = base or AutoModelForCausalLM.from_pretrained(
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
    return trl.SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(columns).select([index for index in plan.order if index >= 0]),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=lora,
        callbacks=callbacks,
    )
