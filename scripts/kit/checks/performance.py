"""Rules on what makes a run faster without changing it: where each lever works, and where it only looks as if."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, warning
from kit.stacks.stack import VARIABLE_LENGTH

if TYPE_CHECKING:
    from kit.checks.context import CheckContext

_CURRENT = "make setup STACK=current, or"


def partial_checkpointing(run: CheckContext) -> list[Finding]:
    """Refuse partial checkpointing on a stack without it; warn where there is nothing to be partial about."""
    key = "training.gradient_checkpointing_every_n_layers"
    every = run.settings.training.gradient_checkpointing_every_n_layers
    if every == 1:
        return []
    if run.is_installed and not run.stack.has_partial_checkpointing:
        found = run.stack.versions.get("transformers")
        message = f"{key} is {every}, but transformers {found} checkpoints all layers or none; 5.17 can"
        return [error("config.levers.checkpointing", message, f"{_CURRENT} {key}=1", run.where(key))]
    if not run.settings.training.gradient_checkpointing:
        message = f"{key} is {every}, but has no effect while training.gradient_checkpointing is false"
        return [warning("config.levers.checkpointing", message, f"{key}=1", run.where(key))]
    return []


def padding_free(run: CheckContext) -> list[Finding]:
    """Refuse rows laid end to end where the stack would let them see each other; warn where it saves nothing."""
    key = "training.padding_free"
    if not run.settings.training.padding_free or not run.is_installed:
        return []
    if not run.stack.traits.padding_free:
        found = run.stack.versions.get("transformers")
        message = f"{key} is true, but in transformers {found} neighbouring rows would attend to each other"
        return [error("config.levers.padding_free", message, f"{_CURRENT} {key}=false", run.where(key))]
    if run.attention not in VARIABLE_LENGTH:
        message = f"{key} is slow with {run.attention} attention, which masks the micro-batch's tokens squared"
        better = "model.attn_implementation=auto" if run.on_cuda else f"{key}=false"
        return [warning("config.levers.padding_free", message, better, run.where(key))]
    return []


def torch_compile(run: CheckContext) -> list[Finding]:
    """Refuse compiled layers where the compiler or the stack is not up to them."""
    key = "training.torch_compile"
    if not run.settings.training.torch_compile:
        return []
    if run.platform == "m4":
        message = f"{key} is true, but torch's compiler for MPS is a prototype; the kit does not train with it"
        return [error("config.levers.torch_compile", message, f"{key}=false", run.where(key))]
    if run.is_installed and not run.stack.traits.compiled_layers:
        message = f"{key} is true, but 4-bit layers of the {run.stack.name} stack do not compile"
        return [error("config.levers.torch_compile", message, f"{_CURRENT} {key}=false", run.where(key))]
    return []


def liger_kernel(run: CheckContext) -> list[Finding]:
    """Refuse Liger's kernels off CUDA and where they are not installed."""
    key = "training.use_liger_kernel"
    if not run.settings.training.use_liger_kernel:
        return []
    if not run.on_cuda:
        message = f"{key} is true, but Liger's Triton kernels need an NVIDIA GPU; this platform is {run.platform}"
        return [error("config.levers.liger_kernel", message, f"{key}=false", run.where(key))]
    if run.is_installed and not run.stack.has_liger_kernel:
        message = f"{key} is true, but the {run.stack.name} stack of this environment has no liger-kernel"
        return [error("config.levers.liger_kernel", message, f"make setup, or {key}=false", run.where(key))]
    return []
