"""Bytes autograd keeps for the backward pass, operation by operation.

Read from the modeling code of transformers 4.36 and 5.23, peft 0.7 and 0.21, bitsandbytes 0.41 and 0.50, and held to
within 1 % of what torch's own hooks count (``bench``). Letters as in the code: ``h`` hidden size, ``T`` tokens
of the padded micro-batch, ``r`` rank. Parameters are not counted, an activation kept by two operations counts once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.plan.step import TrainingStep

_FLOAT32, _INT64 = 4, 8
_INPUT_OF = {
    "q_proj": "input_layernorm",
    "k_proj": "input_layernorm",
    "v_proj": "input_layernorm",
    "o_proj": "attention",
    "gate_proj": "post_attention_layernorm",
    "up_proj": "post_attention_layernorm",
    "down_proj": "mlp",
}
_BEFORE_ATTENTION = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class SavedActivations:
    """What one operation keeps.

    Attributes:
        name: Module and operation, such as ``q_proj.dropout``.
        size_bytes: Of all of it, for the whole micro-batch.
    """

    name: str
    size_bytes: int


def saved_by_layer(job: TrainingStep, *, input_needs_grad: bool = True) -> tuple[SavedActivations, ...]:
    """Return what one decoder layer keeps when it is not recomputed.

    The first layer without gradient checkpointing has ``input_needs_grad`` False: nothing before it is trained, so its
    first norm and its projections keep less.
    """
    types = _Types(job)
    saved: list[SavedActivations] = []
    if input_needs_grad:
        saved += _norm(job, "input_layernorm")
    saved += _norm(job, "post_attention_layernorm")
    saved += _attention(job, types)
    inner = job.batch.tokens * job.shape.intermediate_size
    # silu keeps its input; the product keeps both factors, and its own result is down_proj's input.
    saved += [
        SavedActivations("mlp.silu", inner * types.output("gate_proj", types.residual)),
        SavedActivations("mlp.product", inner * (types.gate + types.output("up_proj", types.residual))),
    ]
    shared: set[str] = set()
    for module in job.shape.linear_sizes:
        saved += _linear(job, types, module, shared, input_needs_grad or module not in _BEFORE_ATTENTION)
    return tuple(saved)


def saved_by_model(job: TrainingStep) -> int:
    """Return all that is kept after a forward pass, up to and with the final norm; the loss is ``kit.plan.loss``."""
    layers = job.shape.num_hidden_layers
    checkpointed = job.checkpointed_layers
    residual_stream = job.batch.tokens * job.shape.hidden_size * job.base_size
    first = 0
    if not checkpointed:
        first = _total(saved_by_layer(job, input_needs_grad=False))
    unchecked = layers - checkpointed - (0 if checkpointed else 1)
    whole = _total(saved_by_layer(job)) if unchecked else 0
    return checkpointed * residual_stream + first + unchecked * whole + final_norm_bytes(job) + _shared_by_layers(job)


def final_norm_bytes(job: TrainingStep) -> int:
    """Return what the norm behind the last layer keeps."""
    return _total(_norm(job, "norm"))


def _total(saved: tuple[SavedActivations, ...] | list[SavedActivations]) -> int:
    return sum(item.size_bytes for item in saved)


class _Types:
    """Bytes of one element of each activation, as autocast and the adapters make them."""

    def __init__(self, job: TrainingStep) -> None:
        self.job = job
        self.residual = job.base_size
        self.query = self.output("q_proj", self.residual)
        # SDPA and matmul are on autocast's list: what they are given is cast to the compute type.
        self.attention = job.compute_size if job.is_mixed else self.query
        self.gate = self.output("gate_proj", self.residual)
        self.product = max(self.gate, self.output("up_proj", self.residual))

    def input(self, module: str) -> int:
        """Bytes of an element of a module's input."""
        source = _INPUT_OF[module]
        if source == "attention":
            return self.attention
        return self.product if source == "mlp" else self.residual

    def output(self, module: str, given: int) -> int:
        """Bytes of an element of a module's output, for an input of ``given`` bytes an element."""
        job = self.job
        if job.in_4bit or (job.stack.linear_casts_back and self.has_adapter(module)):
            # Linear4bit casts its result back to its input's type, and so may peft's Linear.
            return given
        return job.compute_size

    def has_adapter(self, module: str) -> bool:
        return module in self.job.settings.lora.target_modules


def _norm(job: TrainingStep, name: str) -> list[SavedActivations]:
    """RMSNorm computes in float32: its input is kept in that type, and the reciprocal root of each token."""
    tokens = job.batch.tokens
    copies = 2 if job.stack.norm_keeps_squares else 1  # for the mean's backward
    return [SavedActivations(f"{name}.float32", copies * tokens * job.shape.hidden_size * _FLOAT32 + tokens * _FLOAT32)]


def _linear(
    job: TrainingStep, types: _Types, module: str, shared: set[str], input_needs_grad: bool
) -> list[SavedActivations]:
    """Return what a linear layer keeps: nothing for its frozen weight, and the adapter's own input and middle."""
    inputs, outputs = job.shape.linear_sizes[module]
    tokens, given = job.batch.tokens, types.input(module)
    saved: list[SavedActivations] = []
    if not job.in_4bit and job.is_mixed and job.base_size != job.compute_size and input_needs_grad:
        saved.append(SavedActivations(f"{module}.cast_weight", inputs * outputs * job.compute_size))
    source = _INPUT_OF[module]
    if not types.has_adapter(module):
        if job.stack.four_bit_keeps_input and job.in_4bit and source not in shared:
            shared.add(source)
            saved.append(SavedActivations(f"{module}.input", tokens * inputs * given))
        return saved
    rank = job.settings.lora.r
    inside = job.adapter_size if _casts_input(job) else given
    multiplied = job.compute_size if job.is_mixed else inside
    is_own_copy = job.dropout or inside != given or multiplied != inside
    if job.dropout and input_needs_grad:
        saved.append(
            SavedActivations(f"{module}.dropout_mask", tokens * inputs * (1 if job.device == "cuda" else inside))
        )
    if is_own_copy:
        saved.append(SavedActivations(f"{module}.adapter_input", tokens * inputs * multiplied))
    if not is_own_copy or (job.stack.four_bit_keeps_input and job.in_4bit):
        if source not in shared and not (source == "attention" and _output_is_kept(job)):
            saved.append(SavedActivations(f"{module}.input", tokens * inputs * given))
        shared.add(source)
    saved.append(SavedActivations(f"{module}.adapter_middle", tokens * rank * multiplied))
    if job.is_mixed and job.adapter_size != job.compute_size:
        # autocast's 16-bit copies of the adapter's weights.
        kept = rank * outputs + (rank * inputs if input_needs_grad else 0)
        saved.append(SavedActivations(f"{module}.cast_adapter", kept * job.compute_size))
    return saved


def _casts_input(job: TrainingStep) -> bool:
    """Whether an adapter casts its input to its own type before anything else.

    An unquantised layer's does; a quantised one's does not where it sees that it is under autocast. peft asks
    ``torch.is_autocast_enabled()``, which speaks of CUDA alone: elsewhere it casts as well.
    """
    return not (job.in_4bit and job.is_mixed and job.device == "cuda")


def feed_forward_gradients(job: TrainingStep) -> tuple[int, int]:
    """Return how many gradients inside the feed-forward part live at once, and the bytes of one element of them.

    Two in the type of ``down_proj``'s input: of the product and of one of its factors. Where an adapter casts its
    input, in the adapter's type; and dropout there adds one.
    """
    types = _Types(job)
    given = types.input("down_proj")
    if not types.has_adapter("down_proj") or not _casts_input(job) or job.adapter_size <= given:
        return 2, given
    return (3 if job.dropout else 2), job.adapter_size


def _output_is_kept(job: TrainingStep) -> bool:
    """Whether attention keeps its own output for the backward pass, which is then also ``o_proj``'s input.

    FlashAttention takes padded rows apart and puts its output together again: another tensor.
    """
    return job.attention_kernel == "fused" and not (job.batch.has_padding and job.attention.startswith("flash_"))


def _attention(job: TrainingStep, types: _Types) -> list[SavedActivations]:
    batch, shape, size = job.batch, job.shape, types.attention
    heads, keys, width = shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim
    scores = batch.rows * heads * batch.length**2
    queries = batch.tokens * heads * width
    saved = []
    if job.stack.rotary_in_layers:
        saved.append(SavedActivations("attention.rotation", 2 * batch.length * width * types.query))
    if job.attention_kernel == "eager":
        probabilities = scores * (_FLOAT32 + (size if size != _FLOAT32 else 0))
        # Repeating the only key head of the only row is a view; anything else is copied for the multiplication.
        repeated = batch.tokens * width if keys == batch.rows == 1 else queries
        inputs = (queries + 2 * repeated) * size
        return [
            *saved,
            SavedActivations("attention.inputs", inputs),
            SavedActivations("attention.scores", probabilities),
        ]
    if job.attention_kernel == "math":
        inputs = 3 * queries * _FLOAT32
        return [
            *saved,
            SavedActivations("attention.inputs", inputs),
            SavedActivations("attention.scores", scores * _FLOAT32),
        ]
    # A mask makes transformers repeat the keys and values for every query head; so does a generation without any.
    is_masked = batch.has_padding and job.attention == "sdpa"
    repeated = keys > 1 and (is_masked or job.stack.fused_repeats_keys)
    inputs = (queries + 2 * (queries if repeated else batch.tokens * keys * width)) * size
    saved.append(SavedActivations("attention.inputs", inputs))
    saved.append(SavedActivations("attention.output", queries * size + batch.tokens * heads * _FLOAT32))
    if is_masked:
        # The boolean mask becomes numbers, anew in every layer.
        saved.append(SavedActivations("attention.mask", batch.rows * batch.length**2 * size))
    return saved


def _shared_by_layers(job: TrainingStep) -> int:
    """Return what all layers keep together: the rotary tables, and what a checkpoint is handed."""
    batch = job.batch
    kept = 0
    if job.checkpointed_layers and job.stack.checkpoints_save_arguments:
        kept = batch.length * _INT64  # the positions
        kept += batch.rows * batch.length**2 * job.base_size if job.attention == "eager" else 0
    if job.stack.rotary_in_layers:  # its tables are buffers
        return kept
    if job.checkpointed_layers == job.shape.num_hidden_layers:
        return kept
    return kept + 2 * job.batch.length * job.shape.head_dim * job.base_size
