"""Build the tokenizer, the base model and the adapter with whichever stack is installed.

Imports torch: import this module only where a model is about to be loaded.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import BitsAndBytesConfig, PreTrainedTokenizerFast

from kit.data.chat_tokenizer import ChatTokenizer
from kit.model.files import ModelFileError, find
from kit.model.staging import as_judged
from kit.model.tokenizer_files import read_tokenizer
from kit.model.usability import is_computed, require_whole
from kit.modeling.loading_progress import loading
from kit.stacks.stack import installed_stack

if TYPE_CHECKING:
    from pathlib import Path

    from kit.config.settings import Settings
    from kit.stacks.generation import Traits

_REPORT = "report this as a bug: the check of its files passed"
_SPECIAL_TOKENS = frozenset({"bos_token", "eos_token", "unk_token", "sep_token", "cls_token", "mask_token"})
# peft 0.7.0's LoraConfig: what every peft since then reads. Newer fields are left out of what is saved.
PORTABLE_LORA_KEYS = frozenset(
    {
        "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode",
        "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout",
        "modules_to_save", "peft_type", "r", "rank_pattern", "revision", "target_modules", "task_type",
    }
)  # fmt: skip


def torch_device(platform: str) -> str:
    """Name torch's device for a platform: ``cuda:0``, ``mps`` or ``cpu``."""
    return {"h100": "cuda:0", "cuda": "cuda:0", "m4": "mps"}.get(platform, "cpu")


def load_tokenizer(settings: Settings) -> Any:
    """Wrap the kit's own tokenizer for transformers, to pad with: its own reading differs between the two stacks.

    Padding is masked out by position and not by id, so it is always the end-of-sequence token: a base's own padding
    token may lie beyond its embedding.
    """
    chat, model = ChatTokenizer.load_for(settings), settings.model
    special = {name: text for name, text in chat.special_tokens.items() if name in _SPECIAL_TOKENS}
    special["pad_token"] = special["eos_token"]
    # Read anew: on the reference stack the kit's own may be in a form for conversations alone, and a harness asks
    # for any text.
    tokenizer, _ = read_tokenizer(find(model.model_name_or_path, "tokenizer.json", model.revision))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=chat.template.source,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        **special,
    )


def load_base_model(settings: Settings, platform: str) -> Any:
    """Load the base model onto the platform's device, in 4 bits where the configuration says so.

    transformers sees only the files that were judged (``kit.model.staging``), all of them safetensors: torch below 2.6
    can be made to run code by a pickled checkpoint (CVE-2025-32434).

    Raises:
        ModelFileError: The base is not whole, or a weight was missing, unexpected or of another shape as it was loaded.
    """
    name, stack = settings.model.model_name_or_path, installed_stack()
    quantization = settings.quantization
    options: dict[str, Any] = {
        "attn_implementation": stack.attention_of(settings, platform),
        # With None, transformers 5 puts a quantised model on the CPU of a Mac.
        "device_map": {"": torch_device(platform)},
        "use_safetensors": True,
        "trust_remote_code": False,
        "output_loading_info": True,
    }
    register_attention(stack.traits)
    if quantization.load_in_4bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=quantization.bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=getattr(torch, quantization.bnb_4bit_compute_dtype),
        )
    reader, dtype = stack.traits.reader, getattr(torch, settings.model.torch_dtype)
    base = require_whole(name, settings.model.revision, reader, download=True)
    with loading(name, base.weight_bytes), as_judged(base, reader) as folder:
        model, info = stack.generation.load_model(str(folder), dtype, options)
    _refuse_other_weights(name, model, info)
    # What is written down beside an adapter is the base's name, not where it was read.
    model.name_or_path = model.config._name_or_path = name  # noqa: SLF001 - transformers has no other way
    never_repack(model)
    # With gradient checkpointing a cache costs memory on FlashAttention and an exception on eager (transformers#28056).
    model.config.use_cache = False
    return model


def register_attention(traits: Traits) -> None:
    """Tell transformers of torch's own attention for rows of any length, where it can be told."""
    if "varlen" in traits.attention:
        from kit.modeling import torch_attention

        torch_attention.register()


def never_repack(model: Any) -> None:
    """Keep 4-bit weights as they are on a CPU with AVX512-BF16.

    bitsandbytes 0.50 repacks a layer's weights there for good when it is first evaluated: in bfloat16, and through a
    product without a gradient. Training after an evaluation would then be another one.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _refuse_other_weights(name: str, model: Any, info: dict[str, Any]) -> None:
    """Hold what transformers loaded against what was judged: it only logs what it drew at random or left out."""
    # A head that is tied to the embedding may be left out, or be written all the same: both were compared before.
    passed = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        wrong = sorted(key for key in map(str, info.get(kind, ())) if key not in passed and not is_computed(key))
        if wrong:
            raise ModelFileError(
                f"{name}: transformers loaded it with {kind.replace('_', ' ')}: {', '.join(wrong[:3])}; {_REPORT}"
            )
    if info.get("error_msgs"):
        raise ModelFileError(f"{name}: {info['error_msgs'][0]}; {_REPORT}")


def attach_adapter(model: Any, settings: Settings) -> Any:
    """Freeze the base and put a new LoRA adapter on it, initialised from ``training.seed``.

    The norms stay in the base's type on both stacks: peft's ``prepare_model_for_kbit_training`` would cast them to
    float32, which the current trl no longer does.
    """
    for parameter in model.parameters():
        parameter.requires_grad = False
    # Here and not before the base: loading one draws random numbers, and not the same in both stacks.
    torch.manual_seed(settings.training.seed)
    return get_peft_model(
        model,
        LoraConfig(
            r=settings.lora.r,
            lora_alpha=settings.lora.lora_alpha,
            lora_dropout=settings.lora.lora_dropout,
            target_modules=list(settings.lora.target_modules),
            bias="none",
            task_type="CAUSAL_LM",
        ),
    )


def save_adapter(model: Any, folder: Path) -> list[str]:
    """Write the adapter as safetensors, with a configuration every peft since 0.7 reads.

    Returns:
        Names of fields that were left out although they were set: what another stack would not know.
    """
    model.save_pretrained(str(folder), safe_serialization=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(_portable(config), indent=2) + "\n", encoding="utf-8")
    return sorted(key for key, value in config.items() if key not in PORTABLE_LORA_KEYS and value)


def portable_lora_config(model: Any) -> dict[str, Any]:
    """Describe a model's adapter as ``save_adapter`` does, without writing anything."""
    config = {**model.peft_config["default"].to_dict(), "inference_mode": True}
    return _portable(json.loads(json.dumps(config, default=list)))


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in sorted(config.items()) if key in PORTABLE_LORA_KEYS}
    # peft keeps a set, whose order is not stable.
    return {**kept, "target_modules": sorted(kept["target_modules"])}
