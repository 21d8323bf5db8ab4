"""What is trained, in which precisions, and the tolerances. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.config import schema
from kit.config.settings import Settings
from kit.data.batch_order import order_batches
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.dataset import load_file

if TYPE_CHECKING:
    from kit.data.batch_order import BatchOrder
    from kit.stacks.stack import Stack

CONVERSATIONS = Path(__file__).with_name("conversations.jsonl")
LORA_R = 8
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# No dropout: each kind of device draws it from its own generator.
_LORA = {"r": LORA_R, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": TARGETS, "adapter_dtype": "float32"}
_TRAINING = {
    "seed": 1, "max_seq_length": 96, "num_train_epochs": 3, "max_steps": 6,
    # Four rows per update in micro-batches of two: padding, accumulation, and a filler at the end of an epoch.
    "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
    "gradient_checkpointing": False, "padding_free": False, "sort_within_update": False, "torch_compile": False,
    "use_liger_kernel": False, "fp16": False, "report_to": "none",
    # Only some updates are clipped, and the weight decay is large, so that an error in either shows.
    "learning_rate": 1e-3, "lr_scheduler_type": "cosine", "warmup_ratio": 0.2, "optim": "adamw_torch",
    "weight_decay": 0.1, "max_grad_norm": 1.4,
    "logging_steps": 1, "eval_steps": 1000, "save_steps": 1000,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One precision.

    Attributes:
        four_bit: The base is quantised to NF4 with double quantisation, as in QLoRA.
        bfloat16: Matrix products in bfloat16, as in the 7B runs; float32 elsewhere.
        loss_tolerance: Largest allowed relative difference from the exact loss, over all updates.
    """

    name: str
    four_bit: bool
    bfloat16: bool
    loss_tolerance: float
    gradient_tolerance: float

    @property
    def mathematics(self) -> str:
        """Which exact training it is compared with: ``nf4`` (quantised base) or ``plain``."""
        return "nf4" if self.four_bit else "plain"


# How the tolerances were chosen: docs/PARITY.md.
CASES = (
    Case("float32", four_bit=False, bfloat16=False, loss_tolerance=5e-6, gradient_tolerance=2e-5),
    Case("nf4", four_bit=True, bfloat16=False, loss_tolerance=5e-6, gradient_tolerance=2e-5),
    Case("bfloat16", four_bit=False, bfloat16=True, loss_tolerance=2e-3, gradient_tolerance=1e-2),
    Case("nf4-bfloat16", four_bit=True, bfloat16=True, loss_tolerance=2e-3, gradient_tolerance=1e-2),
)


def why_not(case: Case, stack: Stack, platform: str) -> str:
    """Return why a stack cannot run a case on a platform; empty if it can."""
    if case.four_bit and platform not in stack.traits.four_bit_platforms:
        where = {"m4": "Apple silicon", "cpu": "a CPU"}.get(platform, platform)
        return f"the {stack.name} stack has no 4-bit training on {where}"
    return ""


def settings_for(case: Case, base: Path, output: Path, attention: str = "auto") -> Settings:
    """Return a case's configuration; every key that affects a number is set here, not by a default."""
    values = schema.defaults()
    dtype = "bfloat16" if case.bfloat16 else "float32"
    values["model"] |= {
        "model_name_or_path": str(base), "revision": None, "torch_dtype": dtype, "attn_implementation": attention,
    }  # fmt: skip
    values["quantization"] |= {
        "load_in_4bit": case.four_bit, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype,
    }  # fmt: skip
    values["lora"] |= _LORA | {"target_modules": list(TARGETS)}
    values["data"] |= {"train_file": str(CONVERSATIONS), "val_file": None}
    values["training"] |= _TRAINING | {"output_dir": str(output), "run_name": "parity", "bf16": case.bfloat16}
    return Settings.from_mapping(values)


def plan_for(settings: Settings) -> BatchOrder:
    """Encode the conversations like any data file, and plan the updates."""
    tokenizer = ChatTokenizer.load_for(settings)
    encoded = load_file(CONVERSATIONS, tokenizer, settings.training.max_seq_length, processes=1)
    return order_batches(settings, encoded.rows)


def batch_sha256(plan: BatchOrder) -> str:
    """Hash ids, labels and order."""
    rows = [[list(row.input_ids), list(row.labels)] for row in plan.rows]
    content: dict[str, Any] = {"rows": rows, "order": list(plan.order), "updates": plan.steps}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def settings_sha256(settings: Settings) -> str:
    """Hash the settings that all cases share; folders, precisions and later keys are not part of it."""
    content = {
        "training": {key: getattr(settings.training, key) for key in _TRAINING},
        "lora": {key: getattr(settings.lora, key) for key in _LORA},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
