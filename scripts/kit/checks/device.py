"""Rules on what this device and the installed stack can do: optimizers, attention, 4-bit, cache clearing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, warning
from kit.config import schema
from kit.config.keys import BITSANDBYTES_OPTIMIZERS
from kit.stacks.attention import FLASH_ATTN_4, problem_of
from kit.stacks.generation import version_tuple
from kit.stacks.stack import FLASH

if TYPE_CHECKING:
    from kit.checks.context import CheckContext

_OLDEST_MPS_BITSANDBYTES = (0, 50)
_LONGEST_EAGER = 2048  # tokens; beyond it the score matrices crowd out everything else
_KEYS_WITH_OWN_RULE = frozenset({"training.fp16", "training.torch_compile", "training.use_liger_kernel"})


def optimizer(run: CheckContext) -> list[Finding]:
    """Refuse optimizers that the device or the stack has no kernels for."""
    optim, key = run.settings.training.optim, "training.optim"
    if optim in BITSANDBYTES_OPTIMIZERS and not run.on_cuda:
        message = (
            f"{key} is {optim}, which needs CUDA; adamw_torch is the 32-bit AdamW of this platform ({run.platform})"
        )
        return [error("config.device.optim", message, f"{key}=adamw_torch", run.where(key))]
    if optim in BITSANDBYTES_OPTIMIZERS and run.is_installed and "bitsandbytes" not in run.stack.versions:
        message = f"{key} is {optim}, but bitsandbytes is not installed"
        return [error("config.device.optim", message, "make setup", run.where(key))]
    if optim == "adamw_torch_fused" and not run.on_cuda and not run.stack.traits.fused_adamw_off_cuda:
        message = f"{key} is {optim}, which torch {run.stack.versions.get('torch')} has for CUDA only"
        return [error("config.device.optim", message, f"{key}=adamw_torch", run.where(key))]
    return []


def flash_attention(run: CheckContext) -> list[Finding]:
    """Refuse FlashAttention, torch's own included, where it is not installed or cannot run."""
    if run.attention not in FLASH:
        return []
    key = "model.attn_implementation"
    capability = run.gpu.compute_capability if run.gpu else None
    problem = problem_of(run.attention, run.settings, run.stack, run.platform, capability)
    if not problem:
        return []
    fix = f"{key}={run.stack.traits.plain_attention}"
    if problem == f"is not installed ({FLASH_ATTN_4})":
        fix = f'make setup ARGS="--with attention", or {fix}'
    name = "torch's varlen" if run.attention == "varlen" else f"FlashAttention {run.attention[-1]}"
    return [error("config.device.flash_attention", f"{key}: {name} {problem}", fix, run.where(key))]


def attention_of_stack(run: CheckContext) -> list[Finding]:
    """Refuse what the stack has no code for, and eager attention on long rows."""
    key, attention, stack = "model.attn_implementation", run.attention, run.stack
    if not run.is_installed:
        return []
    if attention in {"sdpa", "flex_attention"} and attention not in stack.attention_implementations:
        message = (
            f"{key} is {attention}, which transformers {stack.versions.get('transformers')} does not have for Mistral"
        )
        return [error("config.device.attention", message, f"{key}=auto, or make setup STACK=current", run.where(key))]
    if attention == "flex_attention" and not run.on_cuda:
        message = f"{key} is flex_attention, whose backward pass needs CUDA; this platform is {run.platform}"
        return [error("config.device.attention", message, f"{key}=auto", run.where(key))]
    length = run.settings.training.max_seq_length
    if attention == "eager" and length > _LONGEST_EAGER:
        why = "the best installed" if run.settings.model.attn_implementation == "auto" else "requested"
        message = (
            f"attention would be eager ({why}), which holds every head's full {length:,} x {length:,} score matrix; "
            f"up to {_LONGEST_EAGER:,} tokens are accepted"
        )
        install = "install flash-attn" if run.on_cuda and stack.traits.plain_attention == "eager" else f"{key}=auto"
        fix = f"{install}, or training.max_seq_length={_LONGEST_EAGER}"
        return [error("config.device.eager", message, fix, run.where(key))]
    return []


def four_bit(run: CheckContext) -> list[Finding]:
    """Refuse 4-bit where the installed stack has none here."""
    key = "quantization.load_in_4bit"
    if not run.settings.quantization.load_in_4bit or not run.is_installed:
        return []
    installed = run.stack.versions.get("bitsandbytes")
    without = f"or without quantisation: {key}=false"
    if installed is None:
        return [
            error(
                "config.device.four_bit",
                f"{key} needs bitsandbytes, which is not installed",
                "make setup",
                run.where(key),
            )
        ]
    if run.platform not in run.stack.traits.four_bit_platforms:
        message = f"bitsandbytes {installed} of the {run.stack.name} stack has no 4-bit on {run.platform}"
        return [error("config.device.four_bit", message, f"make setup STACK=current, {without}", run.where(key))]
    if run.platform == "m4" and version_tuple(installed) < _OLDEST_MPS_BITSANDBYTES:
        message = f"bitsandbytes {installed} has no 4-bit on MPS; 0.50 or later has"
        return [error("config.device.four_bit", message, f"./setup_m4.sh, {without}", run.where(key))]
    return []


def idle_quantization(run: CheckContext) -> list[Finding]:
    """Warn of 4-bit details in a run that does not quantise."""
    if run.settings.quantization.load_in_4bit:
        return []
    details = [f"quantization.{name}" for name in schema.SCHEMA["quantization"]["schema"] if name.startswith("bnb_")]
    given = [key for key in details if run.resolved.origins[key] != "default"]
    if not given:
        return []
    message = (
        f"{', '.join(given)}: no effect while quantization.load_in_4bit is false; the base takes 4 times the memory"
    )
    fix = "quantization.load_in_4bit=true, or delete these keys"
    return [warning("config.device.idle_quantization", message, fix, run.where("quantization.load_in_4bit"))]


def cache_clearing(run: CheckContext) -> list[Finding]:
    """Refuse ``torch_empty_cache_steps`` on a trainer that does not know it."""
    key = "training.torch_empty_cache_steps"
    if (
        run.settings.training.torch_empty_cache_steps is None
        or not run.is_installed
        or run.stack.traits.empty_cache_steps
    ):
        return []
    message = f"{key} is set, but transformers {run.stack.versions.get('transformers')} does not support it"
    return [error("config.device.empty_cache", message, f"{key}=null", run.where(key))]


def keys_without_effect(run: CheckContext) -> list[Finding]:
    """Warn of a key that does nothing on this platform and is set to something."""
    found = []
    for key, rule in schema.keys().items():
        section, name = key.split(".")
        idle = run.platform not in rule["meta"]["platforms"] and key not in _KEYS_WITH_OWN_RULE
        if idle and run.resolved.values[section][name] != rule.get("default"):
            message = f"{key} has no effect on {run.platform}"
            found.append(warning("config.device.no_effect", message, "delete it", run.where(key)))
    return found
