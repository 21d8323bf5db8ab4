"""Every key of the configuration: the only place that knows its type, range, default and meaning.

Settings, validation, overrides, the JSON schema, the reference page and what goes to the trainer follow from these
fields. A section's docstring is its meaning on the reference page.
"""

from __future__ import annotations

from dataclasses import dataclass

from kit.config.declaration import REQUIRED, key
from kit.config.platforms import CUDA_PLATFORMS

_CUDA_OR_CPU = (*CUDA_PLATFORMS, "cpu")
_ACCELERATORS = (*CUDA_PLATFORMS, "m4")
_DTYPES = ["bfloat16", "float16", "float32"]
_ATTENTION = [
    *("auto", "flash_attention_4", "flash_attention_3", "flash_attention_2", "varlen", "flex_attention"),
    *("sdpa", "eager"),
]
LINEAR_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Kept by bitsandbytes; the paged ones need CUDA's unified memory, the 8-bit ones a CUDA kernel.
BITSANDBYTES_OPTIMIZERS = ("paged_adamw_32bit", "paged_adamw_8bit", "adamw_8bit")
_OPTIMIZERS = [*BITSANDBYTES_OPTIMIZERS, "adamw_torch", "adamw_torch_fused", "adafactor", "sgd"]
_SCHEDULERS = ["cosine", "cosine_with_restarts", "linear", "constant", "constant_with_warmup"]
_MANY = (1, 1_000_000)
_ON_TROUBLE = ["stop", "warn"]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The base model and how it is loaded."""

    model_name_or_path: str = key(
        REQUIRED,
        "The base model: a Hugging Face name or a local directory.",
        *("base_model", "model_name", "model_id"),
        may_differ=True,  # its files count, by what is in them
    )
    revision: str | None = key(
        None,
        "The base model's commit (reproducible), tag or branch; the file's is ignored if an override names another "
        "model.",
        may_differ=True,
    )
    torch_dtype: str = key(
        "bfloat16", "The dtype of the unquantised weights (embedding, head, norms).", "dtype", allowed=_DTYPES
    )
    attn_implementation: str = key(
        "auto",
        "The attention kernel; auto takes the best one installed and records it.",
        *("attention", "flash_attention", "use_flash_attention_2"),
        may_differ=True,  # what it resolves to counts, under `attention`
        allowed=_ATTENTION,
    )


@dataclass(frozen=True, kw_only=True)
class QuantizationSettings:
    """The 4-bit base, in bitsandbytes' names."""

    load_in_4bit: bool = key(True, "Keep the frozen base model in 4 bits: the Q of QLoRA.", "quantize", "4bit")
    bnb_4bit_quant_type: str = key(
        "nf4",
        "The 4-bit number format; nf4 is made for normally distributed weights.",
        "quant_type",
        allowed=["nf4", "fp4"],
    )
    bnb_4bit_use_double_quant: bool = key(
        True, "Quantise the quantisation constants too: saves about 0.4 bit per parameter.", "double_quant"
    )
    bnb_4bit_compute_dtype: str = key(
        "bfloat16",
        "The dtype 4-bit weights are dequantised to for each matrix multiplication.",
        "compute_dtype",
        allowed=_DTYPES,
    )


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The adapter, in peft's names."""

    r: int = key(REQUIRED, "The rank of the adapter's two matrices.", "lora_r", "rank", within=(1, 1024))
    lora_alpha: int = key(REQUIRED, "The adapter's output is scaled by lora_alpha / r.", "alpha", within=(1, 4096))
    lora_dropout: float = key(0.05, "Dropout on the adapter's input while training.", "dropout", within=(0.0, 0.9))
    target_modules: tuple[str, ...] = key(
        LINEAR_MODULES,
        "The linear layers of each block that get an adapter.",
        "lora_target_modules",
        minlength=1,
        unique=True,
        schema={"type": "string", "allowed": list(LINEAR_MODULES)},
    )
    adapter_dtype: str = key(
        "float32",
        "The adapter's dtype; bfloat16 loses updates below 0.4 % of a weight, and exact resume.",
        "lora_dtype",
        allowed=["float32", "bfloat16"],
    )


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The files to train and evaluate on."""

    train_file: str = key(
        REQUIRED,
        "The JSONL file to train on.",
        *("train_path", "train_data", "dataset", "dataset_path", "data_path"),
        may_differ=True,  # its rows count
    )
    val_file: str | None = key(
        None,
        "The JSONL file to evaluate on; null: no evaluation.",
        *("eval_file", "validation_file", "val_path"),
        may_differ=True,
    )
    template_date: str | None = key(
        None,
        "The date for chat templates that print today's: a fixed one keeps token ids the same.",
        form="a day as YYYY-MM-DD",
        regex=r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z",
        check_with="day",
    )


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The run, in transformers' names."""

    output_dir: str | None = key(
        None, "The run's directory; null: outputs/<run_name>.", "output", "output_path", may_differ=True
    )
    run_name: str = key(
        REQUIRED,
        "Names the run's directory and its wandb run.",
        *("name", "experiment_name"),
        to_trainer=True,
        may_differ=True,
        form="1 to 100 letters, digits, dots, dashes and underscores, beginning with a letter or digit",
        # It becomes a directory and a wandb run: nothing a file system or a shell reads as something else.
        regex=r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z",
    )
    seed: int = key(
        42, "Seeds the adapter, the row order and dropout.", "random_seed", to_trainer=True, within=(0, 2**32 - 1)
    )
    max_seq_length: int = key(
        2048,
        "Tokens per row; longer rows are truncated.",
        *("max_length", "sequence_length", "cutoff_len"),
        within=(8, 131072),
    )
    per_device_train_batch_size: int = key(
        1,
        "Rows in one forward pass: the micro-batch.",
        *("batch_size", "micro_batch_size", "train_batch_size"),
        to_trainer=True,
        within=(1, 1024),
    )
    per_device_eval_batch_size: int = key(
        1, "Rows in one forward pass of evaluation.", "eval_batch_size", to_trainer=True, within=(1, 1024)
    )
    gradient_accumulation_steps: int = key(
        16,
        "Micro-batches per weight update.",
        *("grad_accumulation", "accumulation_steps"),
        to_trainer=True,
        within=(1, 4096),
    )
    gradient_checkpointing: bool = key(
        True, "Recompute activations in the backward pass: a third more compute, far less memory.", to_trainer=True
    )
    gradient_checkpointing_every_n_layers: int = key(
        1, "Checkpoint every n-th layer: more memory, less recomputation, the same gradients.", within=(1, 1000)
    )
    padding_free: bool = key(
        False,
        "Concatenate a micro-batch's rows instead of padding them; each attends only to itself. auto: where that "
        "saves enough and the GPU has a kernel for it.",
        *("packing", "sample_packing"),
        or_auto=True,
    )
    sort_within_update: bool = key(
        True, "Batch rows of similar length within each update: less padding, the same update."
    )
    torch_compile: bool = key(
        False, "Compile the decoder layers: minutes at the start, then faster steps.", "compile", platforms=_CUDA_OR_CPU
    )
    use_liger_kernel: bool = key(
        False, "Fused RMSNorm, rotary embedding and SwiGLU from liger-kernel.", "liger_kernel", platforms=CUDA_PLATFORMS
    )
    num_train_epochs: float = key(3.0, "Passes over the training file.", "epochs", "num_epochs", above=0.0, max=1000.0)
    max_steps: int = key(
        -1, "Optimizer steps; -1 lets num_train_epochs decide.", "steps", within=(-1, 10_000_000), forbidden=[0]
    )
    learning_rate: float = key(REQUIRED, "The peak learning rate.", "lr", to_trainer=True, above=0.0, max=1.0)
    lr_scheduler_type: str = key(
        "cosine", "The learning rate's schedule.", "scheduler", to_trainer=True, allowed=_SCHEDULERS
    )
    warmup_ratio: float = key(0.03, "The share of steps used for learning rate warmup.", "warmup", within=(0.0, 1.0))
    optim: str = key(
        "paged_adamw_32bit",
        "The optimizer; paged and 8-bit ones need CUDA.",
        "optimizer",
        to_trainer=True,
        allowed=_OPTIMIZERS,
    )
    weight_decay: float = key(0.01, "Weight decay of the adapter.", "wd", to_trainer=True, within=(0.0, 1.0))
    max_grad_norm: float = key(0.3, "Clip gradients to this norm; 0: off.", to_trainer=True, within=(0.0, 1000.0))
    bf16: bool = key(True, "Mixed precision in bfloat16.", "use_bf16", to_trainer=True)
    fp16: bool = key(
        False,
        "Mixed precision in float16, for GPUs without bfloat16.",
        "use_fp16",
        platforms=CUDA_PLATFORMS,
        to_trainer=True,
    )
    logging_steps: int = key(
        10, "Optimizer steps between log lines.", "log_interval", to_trainer=True, may_differ=True, within=_MANY
    )
    eval_steps: int = key(
        100, "Optimizer steps between evaluations.", "eval_interval", to_trainer=True, may_differ=True, within=_MANY
    )
    save_steps: int = key(
        500, "Optimizer steps between checkpoints.", "save_interval", to_trainer=True, may_differ=True, within=_MANY
    )
    save_total_limit: int = key(3, "Checkpoints kept; the oldest are deleted.", may_differ=True, within=(1, 1000))
    torch_empty_cache_steps: int | None = key(
        None,
        "Steps between calls that empty the device's cache; null: never.",
        platforms=_ACCELERATORS,
        may_differ=True,
        within=_MANY,
    )
    on_bad_loss: str = key(
        "stop",
        "What to do on a NaN or infinite loss or gradient, and on a loss stuck at 0.0 or diverging.",
        may_differ=True,
        allowed=_ON_TROUBLE,
    )
    on_stall: str = key("stop", "What to do when a step stalls.", may_differ=True, allowed=_ON_TROUBLE)
    stall_timeout: int = key(
        600,
        "Seconds without a finished micro-batch that count as a stall; 0: never.",
        "timeout",
        may_differ=True,
        within=(0, 604_800),
    )
    report_to: str = key(
        "none", "Where metrics are sent besides metrics.jsonl.", "logger", may_differ=True, allowed=["wandb", "none"]
    )


@dataclass(frozen=True, kw_only=True)
class WandbSettings:
    """Used if training.report_to is wandb."""

    project: str | None = key(None, "The Weights & Biases project.", "wandb_project", may_differ=True)
    entity: str | None = key(
        None, "The Weights & Biases team or user; null: the one logged in.", "wandb_entity", may_differ=True
    )
    mode: str = key(
        "online",
        "online uploads during the run; offline keeps the data for `wandb sync`.",
        "wandb_mode",
        may_differ=True,
        allowed=["online", "offline", "disabled"],
    )
