"""The seam between the two stacks: the one module that asks which versions are installed.

Two generations of the Hugging Face API meet here, and nowhere else: what each can do, and how each builds the
tokenizer, the model and the trainer. Importing this module imports none of them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING

from kit.cli.interpreter import PROJECT_ROOT
from kit.stacks.locks import CURRENT, M4, REFERENCE, Lock, packages

if TYPE_CHECKING:
    from kit.config.settings import Settings

PACKAGES = (
    *("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate"),
    *("flash-attn", "flash-attn-3", "flash-attn-4", "liger-kernel", "wandb"),
)
# Attention that takes rows laid end to end as they are, without a mask over all of them squared.
VARIABLE_LENGTH = frozenset({"flash_attention_4", "flash_attention_3", "flash_attention_2", "varlen", "flex_attention"})
# FlashAttention in one form or another: for NVIDIA GPUs, and 16 bits.
FLASH = VARIABLE_LENGTH - {"flex_attention"}


# The first torch whose own kernel takes rows of any length, and the first in which it knows a sliding window.
FIRST_VARLEN, FIRST_VARLEN_WINDOW = (2, 10), (2, 11)


def version_tuple(version: str) -> tuple[int, ...]:
    """Turn ``2.10.0+cu128`` into ``(2, 10, 0)``; parts that are no numbers end it."""
    parts: list[int] = []
    for part in version.split("+", maxsplit=1)[0].split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def is_float32(settings: Settings) -> bool:
    """Whether attention is computed in 32 bits."""
    return settings.model.torch_dtype == "float32" and settings.mixed_precision is None


def window_in_use(settings: Settings) -> int | None:
    """Return the model's sliding window where a row may be longer than it; None where it hides nothing."""
    from kit.model.shape import shape_of

    shape = shape_of(settings.model)
    window = shape.sliding_window if shape else None
    return window if window is not None and settings.training.max_seq_length > window else None


@dataclass(frozen=True)
class Stack:
    """What is installed, and what it can do.

    Attributes:
        name: ``reference`` (transformers 4), ``current`` (transformers 5 and later) or ``none``.
        versions: Installed version by package, for those of ``PACKAGES`` that are installed.
    """

    name: str
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def four_bit_platforms(self) -> frozenset[str]:
        """Platforms on which this stack's bitsandbytes trains in 4 bits."""
        cuda = {"h100", "cuda"}
        return frozenset(cuda | {"cpu", "m4"} if self.name == "current" else cuda)

    @property
    def has_flash_attention(self) -> bool:
        """Whether the optional flash-attn package is installed."""
        return "flash-attn" in self.versions

    @property
    def attention_implementations(self) -> tuple[str, ...]:
        """What Mistral can use here, best first. transformers 4.36 has no SDPA path for Mistral."""
        flash = ("flash_attention_2",) if self.has_flash_attention else ()
        if self.name != "current":
            return (*flash, "eager")
        hopper = ("flash_attention_3",) if "flash-attn-3" in self.versions else ()
        varlen = ("varlen",) if self.torch >= FIRST_VARLEN else ()
        # Last: auto does not come to it before it was measured on rows laid end to end.
        cute = ("flash_attention_4",) if "flash-attn-4" in self.versions else ()
        return (*hopper, *flash, "sdpa", *varlen, "flex_attention", "eager", *cute)

    @property
    def torch(self) -> tuple[int, ...]:
        """The version of torch; empty where it is not installed."""
        return version_tuple(self.versions.get("torch", ""))

    def resolve_attention(
        self, requested: str, platform: str, *, padding_free: bool = False, without: frozenset[str] = frozenset()
    ) -> str:
        """Turn ``auto`` into the best this stack has on a platform; anything else is taken at its word.

        Args:
            requested: As the configuration names it.
            platform: Platform name.
            padding_free: Rows lie end to end, which on a GPU is for a kernel that needs no mask.
            without: What cannot compute the run.
        """
        if requested != "auto":
            return requested
        on_cuda = platform in {"h100", "cuda"}
        there = [
            name
            for name in self.attention_implementations
            if name not in without
            and (on_cuda or name not in FLASH)
            and (platform == "h100" or name != "flash_attention_3")
        ]
        wanted = [name for name in there if name in VARIABLE_LENGTH] if padding_free and on_cuda else []
        return (wanted or there)[0]

    def attention_of(self, settings: Settings, platform: str) -> str:
        """Return the attention a configuration runs with on a platform."""
        return self._resolved(settings.model.attn_implementation, settings, platform)

    def planned_attention(self, settings: Settings, platform: str) -> str:
        """Return what a run on a platform would use, the best this stack has where what is asked for is not there."""
        attention = self.attention_of(settings, platform)
        if attention in self.attention_implementations:
            return attention
        return self._resolved("auto", settings, platform)

    def _resolved(self, requested: str, settings: Settings, platform: str) -> str:
        free, without = settings.training.padding_free, frozenset[str]()
        if requested == "auto" and self.name == "current" and platform in {"h100", "cuda"}:
            if is_float32(settings):
                without = FLASH
            elif free and self.torch < FIRST_VARLEN_WINDOW and window_in_use(settings):
                without = frozenset({"varlen"})
        return self.resolve_attention(requested, platform, padding_free=free, without=without)

    @property
    def has_partial_checkpointing(self) -> bool:
        """Whether every n-th layer alone can be checkpointed (transformers 5.17 and later)."""
        return version_tuple(self.versions.get("transformers", "")) >= (5, 17)

    @property
    def has_padding_free(self) -> bool:
        """Whether rows laid end to end are kept apart by their positions (transformers 5)."""
        return self.name == "current"

    @property
    def has_compiled_layers(self) -> bool:
        """Whether decoder layers with an adapter on a 4-bit base compile without breaks (bitsandbytes 0.50)."""
        return self.name == "current"

    @property
    def has_liger_kernel(self) -> bool:
        """Whether the optional liger-kernel package is installed, and the trainer knows it."""
        return self.name == "current" and "liger-kernel" in self.versions

    @property
    def has_empty_cache_steps(self) -> bool:
        """Whether the trainer knows ``torch_empty_cache_steps`` (transformers 4.45 and later)."""
        return self.name == "current"


def stack_of(versions: dict[str, str]) -> Stack:
    """Name the stack a set of installed versions makes."""
    transformers = version_tuple(versions.get("transformers", ""))
    if not transformers or "torch" not in versions:
        return Stack("none", versions)
    return Stack("current" if transformers >= (5,) else "reference", versions)


def stack_run_on(platform: str) -> str:
    """Name the stack that a platform's own command runs: ``make train-h100`` takes the image's, all others current."""
    return "reference" if platform == "h100" else "current"


def stack_named(name: str, platform: str, *, elsewhere: bool = False) -> Stack:
    """Return a stack to plan for: the installed one where it has that name, else as it is locked.

    Args:
        name: ``reference`` or ``current``.
        platform: What it would run on; the reference stack's image carries flash-attn, the current one's does not.
        elsewhere: The machine that is planned for is not this one, so what is installed here says nothing.
    """
    installed = installed_stack()
    if installed.name == name and not elsewhere:
        return installed
    versions = _locked(M4 if platform == "m4" else REFERENCE if name == "reference" else CURRENT)
    carries_flash = name == "reference" and platform in {"h100", "cuda"}
    return Stack(name, versions | ({"flash-attn": "as in the image"} if carries_flash else {}))


def _locked(lock: Lock) -> dict[str, str]:
    try:
        pins = packages((PROJECT_ROOT / lock.target).read_text(encoding="utf-8"))
    except OSError:
        return {}
    return {name: pins[name] for name in PACKAGES if name in pins}


@functools.cache
def installed_stack() -> Stack:
    """Look at the installed distributions' metadata; imports none of them."""
    versions: dict[str, str] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return stack_of(versions)
