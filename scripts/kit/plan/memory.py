"""Peak memory of a training step, term by term. Sizes are bytes; GB are decimal.

The peak is what always stands (weights, adapter, gradients, optimizer) plus the largest of four moments of a step:
the loss, the final norm's backward pass, a layer's feed-forward part, a layer's attention.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.plan.activations import (
    SavedActivations,
    feed_forward_gradients,
    final_norm_bytes,
    saved_by_layer,
    saved_by_model,
)
from kit.plan.loss import loss_work_bytes, saved_by_loss
from kit.plan.overheads import Term, heap_bytes, process_terms, unseen_terms, workspace_bytes
from kit.plan.step import DTYPE_BYTES

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.model.shape import ModelShape
    from kit.plan.step import TrainingStep

# bitsandbytes: a float32 constant for each 64 weights; with double quantisation 8 bits each, and a float32 for 256.
# Each matrix has its own tables of the 16 and the 256 values a code stands for.
_BLOCK, _OUTER_BLOCK = 64, 256
_TABLE, _OUTER_TABLE = 16 * 4, 256 * 4
# Optimizer state of one parameter, where it does not follow the parameter's own type. The 8-bit ones keep two states
# of one byte and a float32 constant for each 256 values; sgd runs without momentum.
_STATE_BYTES = {
    "paged_adamw_32bit": 8.0,
    "paged_adamw_8bit": 2 * (1 + 4 / 256),
    "adamw_8bit": 2 * (1 + 4 / 256),
    "sgd": 0.0,
}
# bitsandbytes/optim/optimizer.py: smaller tensors of a paged optimizer stay in the allocator.
_PAGED_FROM = 100_000
# RMSNorm's backward pass holds five float32 tensors of its input's size at once.
_NORM_BACKWARD = 20
_FLOAT32 = 4
_ACTIVATIONS, _RECOMPUTED = "saved activations", "one recomputed layer"
_FEED_FORWARD = ("post_attention_layernorm", "mlp", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Peak:
    """The peak of a training step.

    Attributes:
        moment: When it comes: ``loss``, ``final norm``, ``feed-forward`` or ``attention``.
        moving_bytes: The part that a micro-batch adds: activations, loss and working sets.
        outside_allocator_bytes: The part that a run's own figure does not see: on CUDA, of ``max_memory_allocated``,
            the context and what a paged optimizer keeps in managed memory; on a CPU the files that are mapped.
    """

    terms: tuple[Term, ...]
    moment: str
    moving_bytes: int
    outside_allocator_bytes: int

    @property
    def peak_memory_bytes(self) -> int:
        """All terms together."""
        return sum(term.size_bytes for term in self.terms)

    @property
    def allocated_bytes(self) -> int:
        """What a run's own figure is expected to be: of ``max_memory_allocated``, or of the process's own memory."""
        return self.peak_memory_bytes - self.outside_allocator_bytes


def quantised_weights(shape: ModelShape, settings: Settings) -> tuple[int, int]:
    """Return the frozen linear layers' bytes, and their quantisation constants': 3.49 and 0.11 GB for Mistral-7B.

    Together 0.5159 a parameter with double quantisation, 0.5625 without.
    """
    if not settings.quantization.load_in_4bit:
        return shape.linear_parameters * DTYPE_BYTES[settings.model.torch_dtype], 0
    constants = 0
    for inputs, outputs in shape.linear_sizes.values():
        blocks = math.ceil(inputs * outputs / _BLOCK)
        if settings.quantization.bnb_4bit_use_double_quant:
            constants += blocks + math.ceil(blocks / _OUTER_BLOCK) * _FLOAT32 + _OUTER_TABLE
        else:
            constants += blocks * _FLOAT32
        constants += _TABLE
    return shape.linear_parameters // 2, shape.num_hidden_layers * constants


def adapter_terms(shape: ModelShape, settings: Settings) -> tuple[Term, ...]:
    """Return the adapter's weights, gradients and optimizer state: 16 bytes a parameter for AdamW in float32."""
    weights = adapter_bytes(shape, settings)
    return (
        Term("adapter", weights),
        Term("adapter gradients", weights),
        Term("optimizer", optimizer_bytes(shape, settings)),
    )


def adapter_bytes(shape: ModelShape, settings: Settings) -> int:
    """Return the size of the adapter's weights."""
    lora = settings.lora
    return shape.lora_parameters(lora.r, lora.target_modules) * DTYPE_BYTES[lora.adapter_dtype]


def optimizer_bytes(shape: ModelShape, settings: Settings) -> int:
    """Return the size of the optimizer's state."""
    lora, optim = settings.lora, settings.training.optim
    parameters = shape.lora_parameters(lora.r, lora.target_modules)
    if optim == "adafactor":  # a float32 for each row and each column
        return (parameters // lora.r + 2 * lora.r * len(lora.target_modules) * shape.num_hidden_layers) * _FLOAT32
    return round(parameters * _STATE_BYTES.get(optim, 2.0 * DTYPE_BYTES[lora.adapter_dtype]))


def paged_bytes(shape: ModelShape, settings: Settings) -> int:
    """Return the optimizer state in managed memory, which spills into RAM where the GPU is full."""
    if not settings.training.optim.startswith("paged_"):
        return 0
    rank = settings.lora.r
    each = _STATE_BYTES[settings.training.optim]
    matrices = [side * rank for module in settings.lora.target_modules for side in shape.linear_sizes[module]]
    return round(shape.num_hidden_layers * each * sum(size for size in matrices if size >= _PAGED_FROM))


def fixed_terms(job: TrainingStep) -> tuple[Term, ...]:
    """Return the memory that is allocated throughout."""
    shape, settings = job.shape, job.settings
    weights, constants = quantised_weights(shape, settings)
    return (
        Term("frozen linear layers", weights),
        Term("quantisation constants", constants),
        Term("embedding, head and norms", (shape.embedding_parameters + shape.norm_parameters) * job.base_size),
        Term("rotary tables", _rotary_tables(job)),
        Term("cuBLAS workspaces", workspace_bytes(job)),
        *adapter_terms(shape, settings),
    )


def _rotary_tables(job: TrainingStep) -> int:
    """Sines and cosines of every position, where every layer keeps its own: 0.54 GB for Mistral-7B v0.2."""
    shape = job.shape
    if not job.stack.rotary_in_layers:
        return 0
    return 2 * shape.num_hidden_layers * shape.max_position_embeddings * shape.head_dim * job.base_size


def plan_peak(job: TrainingStep) -> Peak:
    """Return the peak of a training step and its terms."""
    moment, moving = max(_moments(job).items(), key=lambda item: sum(term.size_bytes for term in item[1]))
    activations = sum(term.size_bytes for term in moving if term.name in {_ACTIVATIONS, _RECOMPUTED})
    moving = (*moving, Term("freed blocks that the C library keeps", heap_bytes(job, activations)))
    unseen = unseen_terms(job)
    terms = (*fixed_terms(job), *moving, *process_terms(job), *unseen)
    added = sum(term.size_bytes for term in moving)
    outside = sum(term.size_bytes for term in unseen)
    if job.device == "cuda":
        outside += paged_bytes(job.shape, job.settings)
    return Peak(tuple(term for term in terms if term.size_bytes), moment, added, outside)


def coming_bytes(shape: ModelShape, settings: Settings) -> int:
    """Return what the first step allocates for good: the gradients and the optimizer's state."""
    return sum(term.size_bytes for term in adapter_terms(shape, settings)[1:])


def step_bytes(job: TrainingStep, *, with_loss: bool = True) -> int:
    """Return the peak above the fixed terms: activations, loss, working sets; without the loss, of the layers alone."""
    moments = _moments(job)
    if not with_loss:
        del moments["loss"]
    return max(sum(term.size_bytes for term in terms) for terms in moments.values())


def _moments(job: TrainingStep) -> dict[str, tuple[Term, ...]]:
    """Return each moment's terms besides the fixed ones."""
    tokens, shape = job.batch.tokens, job.shape
    residual = tokens * shape.hidden_size
    kept = saved_by_model(job) + _held_by_checkpoints(job)
    casts = _adapter_casts(job)
    norm_work = residual * (_NORM_BACKWARD + job.base_size)
    moments = {
        "loss": (
            Term(_ACTIVATIONS, kept),
            Term("logits and loss", saved_by_loss(job) + loss_work_bytes(job)),
            Term("16-bit copies of the adapter", casts),
        ),
        "final norm": (Term(_ACTIVATIONS, kept), Term("final norm's working set", norm_work)),
    }
    # In the backward pass the final norm's share is free again, and the last layer is whole.
    layer = saved_by_layer(job)
    kept -= final_norm_bytes(job)
    if job.is_checkpointed(shape.num_hidden_layers - 1) or job.checkpointed_layers == shape.num_hidden_layers:
        recomputed = sum(item.size_bytes for item in layer)
    else:
        # A recomputed layer comes later, when the layers above it are free.
        recomputed = 0
    gradient = residual * job.base_size
    number, size = feed_forward_gradients(job)
    inner = tokens * shape.intermediate_size * size
    expanded = _expanded_layer(job)
    moments["feed-forward"] = (
        Term(_ACTIVATIONS, kept),
        Term(_RECOMPUTED, recomputed),
        Term("one layer's working set", gradient + max(inner, number * inner - expanded)),
        Term("one matrix expanded from 4 bits", expanded),
    )
    freed = sum(item.size_bytes for item in layer if item.name.split(".")[0] in _FEED_FORWARD)
    moments["attention"] = (
        Term(_ACTIVATIONS, kept + recomputed - freed),
        Term("one layer's working set", gradient + max(norm_work, _scores_work(job, layer))),
    )
    return moments


def _held_by_checkpoints(job: TrainingStep) -> int:
    """The mask all layers share, which a checkpoint holds on to where autograd's hooks do not see it."""
    if job.stack.checkpoints_save_arguments or not job.checkpointed_layers:
        return 0
    batch = job.batch
    if job.attention == "eager":
        return batch.rows * batch.length**2 * job.base_size
    return batch.rows * batch.length**2 if batch.has_padding and job.attention == "sdpa" else 0


def _adapter_casts(job: TrainingStep) -> int:
    """Autocast's 16-bit copies of the adapter's weights, which live until the forward pass is over.

    A loss in tiles peaks in its backward pass, when those of recomputed layers are gone.
    """
    if job.stack.loss_in_tiles or not job.is_mixed or job.adapter_size == job.compute_size:
        return 0
    lora, layers = job.settings.lora, job.shape.num_hidden_layers
    parameters = job.shape.lora_parameters(lora.r, lora.target_modules)
    return parameters * job.compute_size * job.checkpointed_layers // layers


def _expanded_layer(job: TrainingStep) -> int:
    """The largest matrix, expanded from 4 bits for one multiplication."""
    if not job.in_4bit:
        return 0
    return max(inputs * outputs for inputs, outputs in job.shape.linear_sizes.values()) * job.compute_size


def _scores_work(job: TrainingStep, layer: tuple[SavedActivations, ...]) -> int:
    """Where scores are held whole: their gradient in the compute type, and softmax's backward pass in float32."""
    if job.attention_kernel == "fused":
        return 0
    scores = job.batch.rows * job.shape.num_attention_heads * job.batch.length**2
    freed = sum(item.size_bytes for item in layer if item.name.startswith("o_proj."))
    size = _FLOAT32 if job.attention_kernel == "math" else job.compute_size
    return scores * (size + _FLOAT32) - freed
