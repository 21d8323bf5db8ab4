"""The stack that is installed: of which generation it is, and what it can do with these very packages.

The one module that asks which versions are installed. Importing it imports none of them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, fields
from importlib import metadata
from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.platforms import CUDA_PLATFORMS
from kit.stacks.generation import Traits, version_tuple
from kit.stacks.locks import Lock, packages
from kit.stacks.registry import GENERATIONS, generation_of, make_argument

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.stacks.generation import Generation

PACKAGES = (
    *("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate"),
    *("flash-attn", "flash-attn-3", "flash-attn-4", "liger-kernel", "wandb"),
)
# The package that each FlashAttention is, besides torch's own.
ATTENTION_PACKAGES = {f"flash_attention_{number}": f"flash-attn-{number}".removesuffix("-2") for number in (4, 3, 2)}
# Attention that takes rows laid end to end as they are, without a mask over all of them squared.
VARIABLE_LENGTH = frozenset({*ATTENTION_PACKAGES, "varlen", "flex_attention"})
# FlashAttention in one form or another: for NVIDIA GPUs, and 16 bits.
FLASH = VARIABLE_LENGTH - {"flex_attention"}


# The first torch whose own kernel takes rows of any length, and the first in which it knows a sliding window.
FIRST_VARLEN, FIRST_VARLEN_WINDOW = (2, 10), (2, 11)


def is_float32(settings: Settings) -> bool:
    """Whether attention is computed in 32 bits."""
    return settings.model.torch_dtype == "float32" and settings.mixed_precision is None


def window_in_use(settings: Settings) -> int | None:
    """Return the model's sliding window where a row may be longer than it; None where it hides nothing."""
    from kit.model.shape import shape_of

    shape = shape_of(settings.model)
    window = shape.sliding_window if shape else None
    return window if window is not None and settings.training.max_seq_length > window else None


# What stands for a name where torch or transformers is missing, and where the versions are of no known generation.
_NONE, _UNKNOWN = "none", "unknown"


@dataclass(frozen=True)
class Stack:
    """What is installed, and what it can do.

    Attributes:
        name: The generation: ``reference``, ``current``; ``unknown`` for versions of none that is known, and ``none``
            where torch or transformers is missing.
        versions: Installed version by package, for those of ``PACKAGES`` that are installed.
    """

    name: str
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def is_installed(self) -> bool:
        """Whether there is one."""
        return self.name != _NONE

    @property
    def generation(self) -> Generation:
        """How it is called: as its generation, and as the nearest one where it is of none that is known."""
        return generation_of(self.name, self.versions)

    @property
    def traits(self) -> Traits:
        """What it does; with nothing installed, what the default generation would do."""
        return self.generation.traits

    @property
    def attention_implementations(self) -> tuple[str, ...]:
        """What the model can use here, best first."""
        return tuple(name for name in self.traits.attention if self._has_attention(name))

    def _has_attention(self, name: str) -> bool:
        if name in ATTENTION_PACKAGES:
            return ATTENTION_PACKAGES[name] in self.versions
        return name != "varlen" or self.torch >= FIRST_VARLEN

    @property
    def torch(self) -> tuple[int, ...]:
        """The version of torch; empty where it is not installed."""
        return version_tuple(self.versions.get("torch", ""))

    def resolve_attention(
        self, requested: str, platform: str, *, padding_free: bool = False, without: frozenset[str] = frozenset()
    ) -> str:
        """Turn ``auto`` into the best this stack has on a platform; anything else stays.

        With ``padding_free``, rows lie end to end, which on a GPU is for a kernel that needs no mask; ``without`` names
        what cannot compute the run.
        """
        if requested != "auto":
            return requested
        on_cuda = platform in CUDA_PLATFORMS
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
        if requested == "auto" and platform in CUDA_PLATFORMS:
            if is_float32(settings):
                without = FLASH
            elif free and self.torch < FIRST_VARLEN_WINDOW and window_in_use(settings):
                without = frozenset({"varlen"})
        return self.resolve_attention(requested, platform, padding_free=free, without=without)

    @property
    def has_partial_checkpointing(self) -> bool:
        """Whether every n-th layer alone can be checkpointed; with nothing installed, whether its generation can."""
        first, installed = self.traits.partial_checkpointing_from, version_tuple(self.versions.get("transformers", ""))
        return first is not None and (not installed or installed >= first)

    @property
    def has_liger_kernel(self) -> bool:
        """Whether the optional liger-kernel package is installed, and the trainer knows it."""
        return self.traits.liger_kernel and "liger-kernel" in self.versions


def stack_of(versions: dict[str, str]) -> Stack:
    """Name the stack a set of installed versions makes."""
    if not version_tuple(versions.get("transformers", "")) or "torch" not in versions:
        return Stack(_NONE, versions)
    return Stack(next((name for name, item in GENERATIONS.items() if item.supports(versions)), _UNKNOWN), versions)


def unknown_generation(stack: Stack) -> list[Finding]:
    """Refuse versions of no generation that is known: all that decides memory, calls and loss would be a guess."""
    if not stack.is_installed or stack.name in GENERATIONS:
        return []
    nearest = stack.traits
    traits = ", ".join(item.name for item in fields(nearest) if item.name != "name")
    message = (
        f"{', '.join(stack.generation.unsupported(stack.versions))}: no known generation; these are assumed to be as "
        f"in the {nearest.name} stack: {traits}"
    )
    fix = (
        f"make setup{make_argument(nearest.name)}, or describe the generation in scripts/kit/stacks/ (CONTRIBUTING.md)"
    )
    return [error("stack.unknown", message, fix)]


def stack_named(name: str, platform: str, *, elsewhere: bool = False) -> Stack:
    """Return a stack to plan for: the installed one where it has that name, else as it is locked.

    ``elsewhere``: the machine that is planned for is not this one, so what is installed here says nothing. On an NVIDIA
    GPU the image may carry more than the lock.
    """
    installed = installed_stack()
    if installed.name == name and not elsewhere:
        return installed
    generation = GENERATIONS[name]
    has_wheel = platform in CUDA_PLATFORMS and generation.flash_attn_wheel
    carried = {"flash-attn": "as in the image"} if has_wheel else {}
    return Stack(name, {**_locked(generation.lock_for(platform)), **carried})


def _locked(lock: Lock) -> dict[str, str]:
    try:
        pins = packages((PROJECT_ROOT / lock.target).read_text(encoding="utf-8"))
    except OSError:
        return {}
    return {name: pins[name] for name in PACKAGES if name in pins}


@functools.cache
def installed_stack() -> Stack:
    """Look at the installed distributions' metadata; imports none of them."""
    return stack_of({package: version for package in PACKAGES if (version := _version(package))})


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
