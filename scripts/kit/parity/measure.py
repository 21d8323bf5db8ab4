"""The canonical training through the kit's own loading, adapter and trainer. Imports torch."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from kit.demo.base import SHAPE, new_model, save_base
from kit.demo.tokenizer import byte_tokenizer
from kit.modeling.model import attach_adapter, load_base_model
from kit.parity.contract import (
    CASES,
    LORA_R,
    TARGETS,
    batch_sha256,
    plan_for,
    settings_for,
    settings_sha256,
    why_not,
)
from kit.parity.exact import exact_training, module_norms
from kit.parity.results import CaseResult, Numbers
from kit.parity.weights import canonical_weights, weights_sha256
from kit.stacks.stack import installed_stack
from kit.train.trainer import build_trainer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kit.config.settings import Settings
    from kit.data.batch_order import BatchOrder
    from kit.parity.contract import Case
    from kit.parity.weights import Weights

# transformers 4.36 leaves one training's mixed precision in this variable, for all later ones.
_LEFT_BEHIND = "ACCELERATE_MIXED_PRECISION"


class CanonicalModel:
    """The canonical model on disk, its weights, and the training plan."""

    def __init__(self, folder: Path) -> None:
        """Make all of it in an empty folder."""
        self.base, self.output = folder / "base", folder / "output"
        tokenizer = byte_tokenizer()
        model = new_model(tokenizer.get_vocab_size(), seed=0)
        sizes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
        base = canonical_weights(sizes)
        model.load_state_dict({name: torch.from_numpy(weight) for name, weight in base.items()})
        save_base(model, tokenizer, self.base)
        self.weights: Weights = {**base, **canonical_weights(_adapter_sizes(sizes))}
        self.plan = plan_for(self.settings(CASES[0]))

    def settings(self, case: Case, attention: str = "auto") -> Settings:
        """Return a case's configuration."""
        return settings_for(case, self.base, self.output, attention)

    @property
    def contract(self) -> dict[str, str]:
        """Hashes of weights, rows and settings."""
        return {
            "weights_sha256": weights_sha256(self.weights),
            "batch_sha256": batch_sha256(self.plan),
            "settings_sha256": settings_sha256(self.settings(CASES[0])),
        }

    def exact(self) -> dict[str, Numbers]:
        """Return the exact numbers by mathematics: see ``kit.parity.exact``."""
        settings = self.settings(CASES[0])
        return {
            name: exact_training(self.weights, SHAPE, settings, self.plan, four_bit=name == "nf4")
            for name in ("plain", "nf4")
        }


def _adapter_sizes(base: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    sizes: dict[str, tuple[int, ...]] = {}
    for name, size in base.items():
        layer = name.removesuffix(".weight")
        if layer.rpartition(".")[2] in TARGETS:
            sizes |= {f"{layer}.lora_A.weight": (LORA_R, size[1]), f"{layer}.lora_B.weight": (size[0], LORA_R)}
    return sizes


def attention_for(case: Case, asked_for: str, platform: str) -> str:
    """Return the attention a case runs with; FlashAttention has no float32, so float32 takes the next best."""
    stack = installed_stack()
    if asked_for != "auto" or case.bfloat16:
        return stack.resolve_attention(asked_for, platform)
    return next(name for name in stack.attention_implementations if name != "flash_attention_2")


def run_case(canon: CanonicalModel, case: Case, platform: str, attention: str = "auto") -> CaseResult:
    """Run one case if the stack can; a failure is a result too."""
    reason = why_not(case, installed_stack(), platform)
    if reason:
        return CaseResult(case.name, reason=reason)
    used = attention_for(case, attention, platform)
    started = time.monotonic()
    try:
        numbers = train(canon.settings(case, used), canon.plan, canon.weights, platform)
    except Exception as exc:  # noqa: BLE001 - any error of a device is a result to report
        detail = f"{type(exc).__name__}: {exc}".splitlines()[0]
        return CaseResult(case.name, reason=detail, failed=True, attention=used)
    return CaseResult(case.name, numbers, attention=used, seconds=round(time.monotonic() - started, 3))


def train(settings: Settings, plan: BatchOrder, weights: Weights, platform: str) -> Numbers:
    """Train as a run does and return the measured numbers."""
    os.environ.pop(_LEFT_BEHIND, None)
    model = attach_adapter(load_base_model(settings, platform), settings)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            weight.data.copy_(torch.from_numpy(weights[_plain(name)]))
    watch = _Watch()
    trainer = build_trainer(model, settings, plan, platform, [watch])
    watch.trainer = trainer
    clip: Callable[..., Any] = trainer.accelerator.clip_grad_norm_

    def look_and_clip(*args: Any, **kwargs: Any) -> Any:
        if not watch.modules:
            trained = ((name, weight.grad) for name, weight in model.named_parameters() if weight.requires_grad)
            watch.modules = module_norms({_plain(name): gradient for name, gradient in trained})
        return clip(*args, **kwargs)

    trainer.accelerator.clip_grad_norm_ = look_and_clip
    try:
        trainer.train()
    finally:
        os.environ.pop(_LEFT_BEHIND, None)
    return Numbers(tuple(watch.losses), tuple(watch.norms), watch.modules)


def _plain(name: str) -> str:
    """Remove peft's prefix and infix from a weight's name."""
    return name.removeprefix("base_model.model.").replace(".default.", ".")


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Notes each update's loss and gradient norm."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.modules: dict[str, float] = {}

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        self.losses.append(float(self.trainer.step_losses.pop(state.global_step)))
        self.norms.append(float(self.trainer.grad_norm))
