"""The attention kernel a run uses, the others, and why a faster one is not used. Pure; imports no torch.

torch's own ``scaled_dot_product_attention`` (SDPA) has FlashAttention 2 and cuDNN's kernel inside, for 16 bits and
micro-batches without padding, and takes cuDNN's by itself on a Hopper GPU; with a mask it takes a slower one. The
packages, and torch's own ``varlen``, take padding and rows laid end to end as they are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kit.config.platforms import CUDA_PLATFORMS
from kit.stacks.stack import (
    ATTENTION_PACKAGES,
    FIRST_VARLEN,
    FIRST_VARLEN_WINDOW,
    VARIABLE_LENGTH,
    is_float32,
    window_in_use,
)

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.stacks.stack import Stack

# FlashAttention 2, which torch has inside, is for Ampere and later; flash-attn 3 for Hopper alone, whose compute
# capability is 9.0; flash-attn 4 for Hopper and Blackwell.
_OLDEST_FLASH, _HOPPER = (8, 0), 9
# Fastest first, as their authors measure them on a Hopper GPU.
_FASTEST_FIRST = (
    *("flash_attention_4", "flash_attention_3", "flash_attention_2", "sdpa", "varlen", "flex_attention", "eager"),
)
FLASH_ATTN_4 = ATTENTION_PACKAGES["flash_attention_4"]


@dataclass(frozen=True)
class Kernel:
    """One way to compute attention.

    Attributes:
        name: As the configuration names it.
        words: What it is, with its version.
        problem: Why this run cannot use it, or is not to; empty where it could.
    """

    name: str
    words: str
    problem: str


@dataclass(frozen=True)
class AttentionChoice:
    """What a run uses, and what else there is.

    Attributes:
        reason: ``requested``, or why ``auto`` became it.
        others: All other kernels, fastest first.
    """

    used: Kernel
    reason: str
    others: tuple[Kernel, ...]

    @property
    def passed_over(self) -> tuple[Kernel, ...]:
        """The kernels that are faster than the one that is used."""
        faster = _FASTEST_FIRST[: _FASTEST_FIRST.index(self.used.name)]
        return tuple(kernel for kernel in self.others if kernel.name in faster)

    def line(self, platform: str) -> str:
        """Write the choice on one line, for the log; elsewhere than on a GPU nothing is faster than what is used."""
        text = f"attention: {self.used.name} ({self.reason}): {self.used.words}"
        if platform not in CUDA_PLATFORMS:
            return text
        return "; ".join([text, *(f"not {kernel.name}, which {kernel.problem}" for kernel in self.passed_over)])

    def as_mapping(self) -> dict[str, Any]:
        """Return what the receipt shows."""
        return {
            "used": self.used.name,
            "kernel": self.used.words,
            "reason": self.reason,
            "others": [asdict(kernel) for kernel in self.others],
        }


def choose(settings: Settings, stack: Stack, platform: str, capability: tuple[int, int] | None) -> AttentionChoice:
    """Say which kernel a configuration runs with, and judge the others."""
    name = stack.attention_of(settings, platform)
    asked = settings.model.attn_implementation != "auto"
    is_padding_free = settings.training.padding_free and name in VARIABLE_LENGTH
    best = "the best available without a mask for padding-free rows" if is_padding_free else "the best available"
    others = []
    for other in _FASTEST_FIRST:
        if other != name:
            problem = problem_of(other, settings, stack, platform, capability)
            others.append(Kernel(other, _words(other, stack), problem or _not_chosen(other, settings, asked=asked)))
    return AttentionChoice(Kernel(name, _words(name, stack), ""), "requested" if asked else best, tuple(others))


def problem_of(name: str, settings: Settings, stack: Stack, platform: str, capability: tuple[int, int] | None) -> str:
    """Return why a run cannot use a kernel, as the end of a sentence; empty where it can."""
    if name == "eager":
        return ""
    if name not in stack.traits.attention:
        return f"transformers {stack.versions.get('transformers')} does not have for Mistral"
    if name == "sdpa":
        return ""
    if platform not in CUDA_PLATFORMS:
        return f"needs CUDA; this platform is {platform}"
    if name == "flex_attention":
        return ""
    return _flash_problem(name, settings, stack, capability)


def _flash_problem(  # noqa: PLR0911 - a reason each
    name: str, settings: Settings, stack: Stack, capability: tuple[int, int] | None
) -> str:
    has = f"and this GPU has {capability[0]}.{capability[1]}" if capability else ""
    if name == "flash_attention_3" and capability and capability[0] != _HOPPER:
        return f"needs a Hopper GPU, compute capability 9.0, {has}"
    if name == "flash_attention_4" and capability and capability[0] < _HOPPER:
        return f"needs a Hopper or Blackwell GPU, compute capability 9.0 or later, {has}"
    if capability and capability < _OLDEST_FLASH:
        return f"needs compute capability 8.0 or later, {has}"
    if is_float32(settings):
        return "works in bfloat16 or float16 only, and this run is float32"
    if name == "varlen":
        return _varlen_problem(settings, stack)
    if stack.is_installed and ATTENTION_PACKAGES[name] not in stack.versions:
        return f"is not installed ({ATTENTION_PACKAGES[name]})"
    return ""


def _varlen_problem(settings: Settings, stack: Stack) -> str:
    if not stack.is_installed:
        return ""
    if stack.torch < FIRST_VARLEN:
        return f"needs torch 2.10 or later, and {stack.versions['torch']} is installed"
    window = None if stack.torch >= FIRST_VARLEN_WINDOW else window_in_use(settings)
    if window is not None:
        return f"has no sliding window before torch 2.11, but the model's is {window:,} tokens"
    return ""


def _not_chosen(name: str, settings: Settings, *, asked: bool) -> str:
    if asked:
        return "was not requested"
    if name == "flash_attention_4":
        return "must be requested, as it is not measured on padding-free rows yet"
    if settings.training.padding_free and name not in VARIABLE_LENGTH:
        return "needs a mask of the micro-batch's tokens squared for padding-free rows"
    return "is available, but auto prefers another"


def _words(name: str, stack: Stack) -> str:
    if name in ATTENTION_PACKAGES:
        version = stack.versions.get(ATTENTION_PACKAGES[name])
        return (
            f"FlashAttention {name[-1]}, {ATTENTION_PACKAGES[name]} {version}"
            if version
            else f"FlashAttention {name[-1]}"
        )
    torch = f"torch {stack.versions['torch']}" if "torch" in stack.versions else "torch"
    return {
        "sdpa": f"{torch}'s scaled_dot_product_attention, whose own FlashAttention takes micro-batches without padding",
        "varlen": f"{torch}'s own FlashAttention on rows of any length, without a mask",
        "flex_attention": f"{torch}'s flex_attention, compiled by Triton",
        "eager": "the full score matrix of every head",
    }[name]
