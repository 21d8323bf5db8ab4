"""A first estimate of peak memory, term by term, and of time: pure arithmetic, each formula with its source.

"facts" below are the project's own counts for Mistral-7B: bytes a token and layer, measured on a small model and
scaled by width. Sizes are bytes; GB are decimal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.machine.platforms import hours
from kit.model.shape import MISTRAL_7B, ModelShape

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.machine.facts import Gpu, Machine

# bitsandbytes, block size 64: 4 bits, and a constant a block: float32, or 8 bits and float32 for each 256 blocks.
_NF4_BYTES = 0.5 + 4 / 64
_NF4_DOUBLE_QUANT_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
_DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
# Optimizer state of one parameter, where it does not follow the parameter's own type.
_STATE_BYTES = {"paged_adamw_32bit": 8.0, "paged_adamw_8bit": 2.0, "adamw_8bit": 2.0, "adafactor": 0.0, "sgd": 0.0}
# Saved by one Mistral-7B layer a token, without checkpointing, in 16 bits (measured): at dropout 0, and above it,
# where the dropout masks are kept too.
_LAYER_BYTES = 184_700
_LAYER_BYTES_WITH_DROPOUT = 295_300
# The working set of one Mistral-7B layer a token while it is recomputed, in 16 bits.
_LAYER_WORK_BYTES = 270_000
# float32 logits, their softmax, the gradient and a 16-bit copy, where the loss is not fused with the head.
_LOGIT_BYTES = 14
# Eager attention keeps scores and probabilities in 16 bits and a float32 softmax between them.
_SCORE_BYTES = 8
_CUDA_CONTEXT_BYTES = 500_000_000
# Metal's working-set limit as a share of the unified memory; approximate, it differs between chips and versions.
_METAL_SHARE = 0.75


@dataclass(frozen=True)
class Term:
    """One part of the peak: what it is, and its size in bytes."""

    name: str
    size_bytes: int


@dataclass(frozen=True)
class MemoryEstimate:
    """The peak memory of a run on its device, as the sum of its terms."""

    terms: tuple[Term, ...]

    @property
    def peak_memory_bytes(self) -> int:
        """All terms together."""
        return sum(term.size_bytes for term in self.terms)


@dataclass(frozen=True)
class MemoryLimit:
    """What a run can take on a platform, and in words where the number comes from."""

    size_bytes: int
    reason: str


def base_bytes(shape: ModelShape, settings: Settings) -> int:
    """Return the frozen linear layers' bytes: 0.5159 a parameter in NF4 with double quantisation (3.60 GB for 7B)."""
    quantization = settings.quantization
    if not quantization.load_in_4bit:
        each: float = _DTYPE_BYTES[settings.model.torch_dtype]
    else:
        each = _NF4_DOUBLE_QUANT_BYTES if quantization.bnb_4bit_use_double_quant else _NF4_BYTES
    return round(shape.linear_parameters * each)


def adapter_bytes(shape: ModelShape, settings: Settings) -> int:
    """Return the adapter's weights, gradients and optimizer state: 16 bytes a parameter for AdamW in float32."""
    lora = settings.lora
    weight = _DTYPE_BYTES[lora.adapter_dtype]
    state = _STATE_BYTES.get(settings.training.optim, 2.0 * weight)
    return round(shape.lora_parameters(lora.r, lora.target_modules) * (2 * weight + state))


def activation_terms(shape: ModelShape, settings: Settings, attention: str, *, fused_loss: bool) -> list[Term]:
    """Return what one micro-batch of full-length rows keeps for the backward pass.

    With checkpointing a layer keeps its input (8,192 bytes a token in 16 bits for Mistral-7B) and one layer at a time
    is recomputed, or the logits are there: whichever is larger. Without it every layer keeps its own activations.
    Eager attention adds its score matrix: 8 bytes x heads x length squared, a row and layer.
    """
    training = settings.training
    rows, length = training.per_device_train_batch_size, training.max_seq_length
    tokens = rows * length
    width = (shape.hidden_size + shape.intermediate_size) / (MISTRAL_7B.hidden_size + MISTRAL_7B.intermediate_size)
    mixed = training.bf16 or training.fp16
    activation = 2 if mixed else _DTYPE_BYTES[settings.model.torch_dtype]
    scale = width * activation / 2
    logits = 0 if fused_loss else tokens * shape.vocab_size * _LOGIT_BYTES
    scores = rows * shape.num_attention_heads * length**2 * _SCORE_BYTES if attention == "eager" else 0
    layers = shape.num_hidden_layers
    if training.gradient_checkpointing:
        residual = _DTYPE_BYTES[settings.model.torch_dtype]
        work = round(tokens * _LAYER_WORK_BYTES * scale) + scores
        return [
            Term(f"inputs of {layers} checkpointed layers", layers * tokens * shape.hidden_size * residual),
            Term("the larger of the loss and one layer's work", max(logits, work)),
        ]
    saved = _LAYER_BYTES_WITH_DROPOUT if settings.lora.lora_dropout > 0 else _LAYER_BYTES
    return [
        Term(f"activations of {layers} layers", round(layers * (tokens * saved * scale + scores))),
        Term("the loss", logits),
    ]


def estimate_memory(
    shape: ModelShape, settings: Settings, platform: str, attention: str, *, fused_loss: bool
) -> MemoryEstimate:
    """Estimate the peak of a training step.

    Args:
        shape: The model's sizes.
        settings: The run's configuration.
        platform: One of ``h100``, ``cuda``, ``m4``, ``cpu``.
        attention: The implementation that will run, not ``auto``.
        fused_loss: The loss never holds all logits at once (trl 1 does that, trl 0.7 does not).
    """
    compute = settings.quantization.bnb_4bit_compute_dtype
    embedding = shape.embedding_parameters * _DTYPE_BYTES[settings.model.torch_dtype]
    terms = [
        Term("base model", base_bytes(shape, settings)),
        Term("embedding and head", embedding),
        Term("adapter, gradients, optimizer", adapter_bytes(shape, settings)),
        *activation_terms(shape, settings, attention, fused_loss=fused_loss),
    ]
    if settings.quantization.load_in_4bit:
        one_layer = shape.hidden_size * shape.intermediate_size * _DTYPE_BYTES[compute]
        terms.append(Term("one layer expanded from 4 bits", one_layer))
    if platform in {"h100", "cuda"}:
        terms.append(Term("CUDA context", _CUDA_CONTEXT_BYTES))
    return MemoryEstimate(tuple(terms))


def memory_limit(machine: Machine, platform: str, gpu: Gpu | None) -> MemoryLimit | None:
    """Return what a run can take here, or None where the machine's facts do not tell."""
    if gpu is not None:
        used = gpu.memory_used_bytes or 0
        return MemoryLimit(gpu.memory_total_bytes - used, "the GPU's memory less what is in use now")
    if platform == "m4":
        unified = machine.apple.unified_memory_bytes if machine.apple else None
        if unified is None:
            return None
        return MemoryLimit(round(unified * _METAL_SHARE), "about three quarters of the unified memory, Metal's limit")
    if machine.memory_available_bytes is None:
        return None
    return MemoryLimit(machine.memory_available_bytes, "the memory available now")


def training_tokens(settings: Settings, rows: int) -> int:
    """Return the tokens a run goes through if every row is full length: an upper bound."""
    training = settings.training
    if training.max_steps > 0:
        return training.max_steps * settings.effective_batch_size * training.max_seq_length
    return round(rows * training.num_train_epochs) * training.max_seq_length


def training_hours(
    shape: ModelShape, tokens: int, platform: str, gpu_cores: int | None = None
) -> tuple[float, float] | None:
    """Return the (low, high) hours for so many tokens, or None for a model too small for this arithmetic.

    The platform's rates are for Mistral-7B; compute a token is proportional to the parameters. A small model is
    bound by overheads instead, which no proportion gives.
    """
    ratio = shape.linear_parameters / MISTRAL_7B.linear_parameters
    if ratio < _SMALLEST_RATIO:
        return None
    low, high = hours(tokens, platform, gpu_cores)
    return low * ratio, high * ratio


_SMALLEST_RATIO = 0.1
