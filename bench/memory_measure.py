"""Count what a real forward and backward pass takes, to hold the plan's formulas to. Imports torch.

The model has random weights, so any shape can be measured without a download. Its parts are the trainer's own: the
adapter of ``kit.modeling.model``, the installed trl's fused loss or the reference stack's float32 logits.
"""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, Any

import torch
from transformers import MistralConfig, MistralForCausalLM

from bench.memory_cases import Measured
from kit.data.encoding import IGNORE_INDEX
from kit.modeling.model import attach_adapter, never_repack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.plan.step import TrainingStep


def measure(job: TrainingStep, base: Any = None) -> Measured:
    """Put a job's adapter on a base with random weights and train one micro-batch, twice: the second is counted.

    On a CPU the allocations are counted by torch's profiler, on CUDA by its allocator.

    Args:
        job: What to train.
        base: What ``build_base`` made for a job of this shape; None to make it here.
    """
    torch.manual_seed(0)
    model = with_adapter(job, build_base(job) if base is None else base)
    inputs, labels = _batch(job)
    saved = _count_saved(job, model, inputs, labels)
    gc.collect()
    standing = torch.cuda.memory_allocated() if job.device == "cuda" else _standing_bytes(model)
    step = _peak_of(job, lambda: _loss(job, model, inputs, labels).backward())
    layers = _peak_of(job, lambda: _last_hidden_state(job, model, inputs)[:, :, :1].sum().backward())
    return Measured(standing, saved, step, layers)


def build_base(job: TrainingStep) -> Any:
    """Make the base with random weights on its device, quantised where the configuration says so.

    Its weights are drawn whole before they are quantised: 14.5 GB for Mistral-7B in 16 bits.
    """
    shape, settings = job.shape, job.settings
    dtype = getattr(torch, settings.model.torch_dtype)
    config = MistralConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.max_position_embeddings,
        sliding_window=None,
        attn_implementation=job.attention,
    )
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(job.device):
            base = MistralForCausalLM(config)
    finally:
        torch.set_default_dtype(default)
    base.config.use_cache = False
    if job.in_4bit:
        _quantise(base, job)
    return base


def with_adapter(job: TrainingStep, base: Any) -> Any:
    """Put the adapter on a base, and get both ready to train."""
    settings = job.settings
    base.config._attn_implementation = job.attention  # noqa: SLF001 - transformers 4.36 overwrites it
    model = attach_adapter(base, settings)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(getattr(torch, settings.lora.adapter_dtype))
    if settings.training.gradient_checkpointing:
        partial = job.stack.partial_checkpointing_from is not None
        options = {"every_n_layers": job.every_n_layers} if partial else {}
        base.gradient_checkpointing_enable({"use_reentrant": False}, **options)
        model.enable_input_require_grads()
    if job.stack.loss_in_tiles:
        from trl.trainer.utils import add_fused_lm_head

        add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))
    return model.train()


def _quantise(base: Any, job: TrainingStep) -> None:
    """Put bitsandbytes' layers in place of the decoder's linear ones, one after the other."""
    import bitsandbytes

    quantization = job.settings.quantization
    for layer in base.model.layers:
        for module in (layer.self_attn, layer.mlp):
            for name, linear in list(module.named_children()):
                if not isinstance(linear, torch.nn.Linear):
                    continue
                weight = bitsandbytes.nn.Params4bit(
                    linear.weight.data,
                    requires_grad=False,
                    compress_statistics=quantization.bnb_4bit_use_double_quant,
                    quant_type=quantization.bnb_4bit_quant_type,
                )
                replacement = bitsandbytes.nn.Linear4bit(
                    1,
                    1,
                    bias=False,
                    compute_dtype=getattr(torch, quantization.bnb_4bit_compute_dtype),
                    compress_statistics=quantization.bnb_4bit_use_double_quant,
                    quant_type=quantization.bnb_4bit_quant_type,
                )
                replacement.in_features, replacement.out_features = linear.in_features, linear.out_features
                replacement.weight = weight.to(job.device)
                replacement.weight.module = replacement
                setattr(module, name, replacement)
    base.is_loaded_in_4bit = True
    never_repack(base)


def _batch(job: TrainingStep) -> tuple[dict[str, Any], Any]:
    batch = job.batch
    ids = torch.randint(0, job.shape.vocab_size, (batch.rows, batch.length))
    labels, mask = ids.clone(), torch.ones_like(ids)
    if batch.has_padding:
        mask[0, -1], labels[0, -1] = 0, IGNORE_INDEX
    inputs = {"input_ids": ids.to(job.device), "attention_mask": mask.to(job.device)}
    return inputs, labels.to(job.device)


def _loss(job: TrainingStep, model: Any, inputs: dict[str, Any], labels: Any) -> Any:
    """The loss as the trainers of ``kit.train.trainer`` compute it, under the autocast accelerate puts around it."""
    if job.stack.loss_in_tiles:
        with _mixed(job):
            outputs = model(**inputs, labels=labels, fused_lm_head=True)
        return -outputs.log_probs.sum() / labels.numel()
    with _mixed(job):
        outputs = model(**inputs, use_cache=False)
    logits = outputs.logits.float()
    summed = torch.nn.functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
    )
    return summed / labels.numel()


def _last_hidden_state(job: TrainingStep, model: Any, inputs: dict[str, Any]) -> Any:
    with _mixed(job):
        return model.get_base_model().model(**inputs, use_cache=False).last_hidden_state


def _mixed(job: TrainingStep) -> Any:
    dtype = torch.bfloat16 if job.settings.training.bf16 else torch.float16
    return torch.autocast(job.device, dtype) if job.is_mixed else contextlib.nullcontext()


def _count_saved(job: TrainingStep, model: Any, inputs: dict[str, Any], labels: Any) -> int:
    fixed = {tensor.untyped_storage().data_ptr() for tensor in _tensors(model)}
    saved: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in fixed:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = _loss(job, model, inputs, labels)
    total = int(sum(storage.nbytes() for storage in saved.values()))
    loss.backward()  # from here on the gradients stand
    return total


def _peak_of(job: TrainingStep, step: Any) -> int:
    if job.device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - before)
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    now = peak = 0
    for size in _allocations(profiler):
        now += size
        peak = max(peak, now)
    return peak


def _allocations(profiler: Any) -> Iterator[int]:
    """Bytes taken (or, negative, given back) by each call of the allocator, in order."""
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    clock = "start_ns" if hasattr(events[0], "start_ns") else "start_us"
    for event in sorted(events, key=lambda event: getattr(event, clock)()):
        yield event.nbytes()


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.parameters()
    yield from model.buffers()
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        for part in (state, getattr(state, "state2", None)):
            if part is not None:
                yield from (value for value in (part.absmax, part.code) if value is not None)


def _standing_bytes(model: Any) -> int:
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    storages = [tensor.untyped_storage() for tensor in (*_tensors(model), *gradients)]
    return int(sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values()))
