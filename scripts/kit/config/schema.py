"""The Cerberus schema: the only place that knows a key, its type, range, default, meaning and platforms.

Validation, overrides, the defaults and the reference page are made from ``SCHEMA``. Each key's ``meta`` holds

- ``meaning``: one sentence for the reference page;
- ``platforms``: where the key has an effect;
- ``also_known_as``: what other kits call it, so that a familiar name leads to the right one;
- ``form``: the words for a ``regex``, where there is one.

``above`` (an exclusive minimum) and ``unique`` are rules of our own: see ``kit.config.validator``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ALL_PLATFORMS = ("h100", "cuda", "m4", "cpu")
_CUDA = ("h100", "cuda")
_CUDA_OR_CPU = ("h100", "cuda", "cpu")
_ACCELERATORS = ("h100", "cuda", "m4")

LINEAR_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

# Kept by bitsandbytes; the paged ones need CUDA's unified memory, the 8-bit ones a CUDA kernel.
BITSANDBYTES_OPTIMIZERS = ("paged_adamw_32bit", "paged_adamw_8bit", "adamw_8bit")
_OPTIMIZERS = (*BITSANDBYTES_OPTIMIZERS, "adamw_torch", "adamw_torch_fused", "adafactor", "sgd")
_SCHEDULERS = ("cosine", "cosine_with_restarts", "linear", "constant", "constant_with_warmup")

# No line breaks, no control characters, no blanks at either end: text that survives a log line and a file name.
_TEXT = r"(?!\s)[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+(?<!\s)\Z"
# The run's name becomes a directory and a wandb run: nothing a file system or a shell reads as something else.
_RUN_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z"

_REQUIRED = object()  # marks a key without a default


def _rule(
    default: Any, meaning: str, platforms: tuple[str, ...], also: tuple[str, ...], **rules: Any
) -> dict[str, Any]:
    """Put one key's rules together; a default of None makes the key nullable, no default makes it required."""
    rule = {**rules, "meta": {"meaning": meaning, "platforms": platforms, "also_known_as": also}}
    if default is _REQUIRED:
        return {**rule, "required": True}
    return {**rule, "default": default, "nullable": default is None}


def _integer(
    default: Any, low: int, high: int, meaning: str, *also: str, platforms: tuple[str, ...] = ALL_PLATFORMS
) -> dict[str, Any]:
    return _rule(default, meaning, platforms, also, type="integer", min=low, max=high)


def _number(
    default: Any, high: float, meaning: str, *also: str, low: float | None = None, above: float | None = None
) -> dict[str, Any]:
    bound = {"above": above} if low is None else {"min": low}
    return _rule(default, meaning, ALL_PLATFORMS, also, type="number", check_with="finite", max=high, **bound)


def _boolean(default: Any, meaning: str, *also: str, platforms: tuple[str, ...] = ALL_PLATFORMS) -> dict[str, Any]:
    return _rule(default, meaning, platforms, also, type="boolean")


def _switch(default: Any, meaning: str, *also: str) -> dict[str, Any]:
    """A boolean that may be left to the kit: the settings say false until somebody has decided."""
    return _rule(default, meaning, ALL_PLATFORMS, also, type="switch", allowed=[True, False, "auto"])


def _choice(default: Any, allowed: tuple[str, ...], meaning: str, *also: str) -> dict[str, Any]:
    return _rule(default, meaning, ALL_PLATFORMS, also, type="string", allowed=list(allowed))


def _text(
    default: Any, meaning: str, *also: str, regex: str = _TEXT, form: str = "text on one line, not empty"
) -> dict[str, Any]:
    rule = _rule(default, meaning, ALL_PLATFORMS, also, type="string", regex=regex)
    rule["meta"]["form"] = form
    return rule


def _section(meaning: str, keys: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"type": "dict", "schema": keys, "meta": {"meaning": meaning}}


_MODEL = {
    "model_name_or_path": _text(
        _REQUIRED, "The base model: a Hugging Face name or a local directory.", "base_model", "model_name", "model_id"
    ),
    "revision": _text(
        None,
        "The base model's commit (repeatable), tag or branch; a file's is ignored if an override names another model.",
    ),
    "torch_dtype": _choice(
        "bfloat16",
        ("bfloat16", "float16", "float32"),
        "The type of the unquantised weights (embedding, head, norms).",
        "dtype",
    ),
    "attn_implementation": _choice(
        "auto",
        (
            *("auto", "flash_attention_4", "flash_attention_3", "flash_attention_2", "varlen", "flex_attention"),
            *("sdpa", "eager"),
        ),
        "The attention kernel; auto takes the best one installed and records it.",
        "attention",
        "flash_attention",
        "use_flash_attention_2",
    ),
}
_QUANTIZATION = {
    "load_in_4bit": _boolean(True, "Keep the frozen base model in 4 bits: the Q of QLoRA.", "quantize", "4bit"),
    "bnb_4bit_quant_type": _choice(
        "nf4", ("nf4", "fp4"), "The 4-bit number format; nf4 is made for normally distributed weights.", "quant_type"
    ),
    "bnb_4bit_use_double_quant": _boolean(
        True, "Quantise the quantisation constants too: saves about 0.4 bit a parameter.", "double_quant"
    ),
    "bnb_4bit_compute_dtype": _choice(
        "bfloat16",
        ("bfloat16", "float16", "float32"),
        "The type 4-bit weights are dequantised to for each multiplication.",
        "compute_dtype",
    ),
}
_LORA = {
    "r": _integer(_REQUIRED, 1, 1024, "The rank of the adapter's two matrices.", "lora_r", "rank"),
    "lora_alpha": _integer(_REQUIRED, 1, 4096, "The adapter's output is scaled by lora_alpha / r.", "alpha"),
    "lora_dropout": _number(0.05, 0.9, "Dropout on the adapter's input while training.", "dropout", low=0.0),
    "target_modules": {
        **_rule(
            list(LINEAR_MODULES),
            "The linear layers of each block that get an adapter.",
            ALL_PLATFORMS,
            ("lora_target_modules",),
            type="list",
            minlength=1,
            unique=True,
            schema={"type": "string", "allowed": list(LINEAR_MODULES)},
        )
    },
    "adapter_dtype": _choice(
        "float32",
        ("float32", "bfloat16"),
        "The type of the adapter's weights; bfloat16 loses updates below 0.4 % of a weight and exact resume.",
        "lora_dtype",
    ),
}
_DATA = {
    "train_file": _text(
        _REQUIRED, "The JSONL file to train on.", "train_path", "train_data", "dataset", "dataset_path", "data_path"
    ),
    "val_file": _text(
        None,
        "The JSONL file to evaluate on; null: no evaluation.",
        "eval_file",
        "validation_file",
        "val_path",
    ),
    "template_date": {
        **_text(
            None,
            "Today's date for chat templates that print it, so that the same rows always give the same ids.",
            regex=r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z",
            form="a day as YYYY-MM-DD",
        ),
        "check_with": "day",
    },
}
_TRAINING = {
    "output_dir": _text(None, "The run's directory; null: outputs/<run_name>.", "output", "output_path"),
    "run_name": _text(
        _REQUIRED,
        "Names the run's directory and its wandb run.",
        "name",
        "experiment_name",
        regex=_RUN_NAME,
        form="1 to 100 letters, digits, dots, dashes and underscores, beginning with a letter or digit",
    ),
    "seed": _integer(42, 0, 2**32 - 1, "Seeds the adapter, the row order and dropout.", "random_seed"),
    "max_seq_length": _integer(
        2048, 8, 131072, "Tokens per row; longer rows are truncated.", "max_length", "sequence_length", "cutoff_len"
    ),
    "per_device_train_batch_size": _integer(
        1, 1, 1024, "Rows in one forward pass: the micro-batch.", "batch_size", "micro_batch_size", "train_batch_size"
    ),
    "per_device_eval_batch_size": _integer(1, 1, 1024, "Rows in one forward pass of evaluation.", "eval_batch_size"),
    "gradient_accumulation_steps": _integer(
        16, 1, 4096, "Micro-batches per weight update.", "grad_accumulation", "accumulation_steps"
    ),
    "gradient_checkpointing": _boolean(
        True, "Recompute activations in the backward pass: a third more compute, far less memory."
    ),
    "gradient_checkpointing_every_n_layers": _integer(
        1, 1, 1000, "Checkpoint every n-th layer: more memory, less recomputation, the same gradients."
    ),
    "padding_free": _switch(
        False,
        "Concatenate a micro-batch's rows instead of padding them; each attends only to itself. auto: where that saves "
        "enough and the GPU has a kernel for it.",
        "packing",
        "sample_packing",
    ),
    "sort_within_update": _boolean(
        True, "Batch rows of similar length within each update: less padding, the same update."
    ),
    "torch_compile": _boolean(
        False, "Compile the decoder layers: minutes at the start, then faster steps.", "compile", platforms=_CUDA_OR_CPU
    ),
    "use_liger_kernel": _boolean(
        False, "Fused RMSNorm, rotary embedding and SwiGLU from liger-kernel.", "liger_kernel", platforms=_CUDA
    ),
    "num_train_epochs": _number(3.0, 1000.0, "Passes over the training file.", "epochs", "num_epochs", above=0.0),
    "max_steps": {
        **_integer(-1, -1, 10_000_000, "Optimizer steps; -1 lets num_train_epochs decide.", "steps"),
        "forbidden": [0],
    },
    "learning_rate": _number(_REQUIRED, 1.0, "The peak learning rate.", "lr", above=0.0),
    "lr_scheduler_type": _choice("cosine", _SCHEDULERS, "The learning rate's schedule.", "scheduler"),
    "warmup_ratio": _number(0.03, 1.0, "The share of steps in which the learning rate rises.", "warmup", low=0.0),
    "optim": _choice("paged_adamw_32bit", _OPTIMIZERS, "The optimizer; paged and 8-bit ones need CUDA.", "optimizer"),
    "weight_decay": _number(0.01, 1.0, "Decay of the adapter's weights.", "wd", low=0.0),
    "max_grad_norm": _number(0.3, 1000.0, "Clip gradients to this norm; 0: off.", low=0.0),
    "bf16": _boolean(True, "Mixed precision in bfloat16.", "use_bf16"),
    "fp16": _boolean(False, "Mixed precision in float16, for GPUs without bfloat16.", "use_fp16", platforms=_CUDA),
    "logging_steps": _integer(10, 1, 1_000_000, "Optimizer steps between log lines.", "log_interval"),
    "eval_steps": _integer(100, 1, 1_000_000, "Optimizer steps between evaluations.", "eval_interval"),
    "save_steps": _integer(500, 1, 1_000_000, "Optimizer steps between checkpoints.", "save_interval"),
    "save_total_limit": _integer(3, 1, 1000, "Checkpoints kept; the oldest are deleted."),
    "torch_empty_cache_steps": _integer(
        None, 1, 1_000_000, "Steps between clearings of the device's cache; null: never.", platforms=_ACCELERATORS
    ),
    "on_bad_loss": _choice(
        "stop",
        ("stop", "warn"),
        "What to do on a NaN or infinite loss or gradient, and on a loss stuck at 0.0 or diverging.",
    ),
    "on_stall": _choice("stop", ("stop", "warn"), "What to do when a step stalls."),
    "stall_timeout": _integer(
        600, 0, 604_800, "Seconds without a finished micro-batch that count as a stall; 0: never.", "timeout"
    ),
    "report_to": _choice("none", ("wandb", "none"), "Where curves go besides metrics.jsonl.", "logger"),
}
_WANDB = {
    "project": _text(None, "The Weights & Biases project.", "wandb_project"),
    "entity": _text(None, "The Weights & Biases team or user; null: the one logged in.", "wandb_entity"),
    "mode": _choice(
        "online",
        ("online", "offline", "disabled"),
        "online sends, offline keeps for `wandb sync`.",
        "wandb_mode",
    ),
}

SCHEMA: dict[str, dict[str, Any]] = {
    "model": _section("The base model and how it is loaded.", _MODEL),
    "quantization": _section("The 4-bit base, in bitsandbytes' names.", _QUANTIZATION),
    "lora": _section("The adapter, in peft's names.", _LORA),
    "data": _section("The files to train and evaluate on.", _DATA),
    "training": _section("The run, in transformers' names.", _TRAINING),
    "wandb": _section("Used if training.report_to is wandb.", _WANDB),
}


def keys() -> dict[str, dict[str, Any]]:
    """Return every key's rules by dotted path, in the schema's order."""
    return {f"{section}.{key}": rule for section, body in SCHEMA.items() for key, rule in body["schema"].items()}


def required_keys() -> list[str]:
    """Return the dotted paths without a default."""
    return [path for path, rule in keys().items() if rule.get("required")]


def with_defaults(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Complete values by dotted path that were written down before some keys were there: those had their defaults."""
    return {**{path: rule["default"] for path, rule in keys().items() if "default" in rule}, **recorded}


def defaults() -> dict[str, dict[str, Any]]:
    """Return the defaults by section and key; required keys are absent. Lists are fresh copies."""
    filled: dict[str, dict[str, Any]] = {section: {} for section in SCHEMA}
    for path, rule in keys().items():
        if "default" in rule:
            section, key = path.split(".")
            value = rule["default"]
            filled[section][key] = list(value) if isinstance(value, list) else value
    return filled
