"""What each generation of the libraries states: its traits, supported versions, and calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kit.model.reader import Reader
    from kit.stacks.locks import Lock

    Version = tuple[int, ...]


def version_tuple(version: str) -> tuple[int, ...]:
    """Turn ``2.10.0+cu128`` into ``(2, 10, 0)``; parts that are no numbers end it."""
    parts: list[int] = []
    for part in version.split("+", maxsplit=1)[0].split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


@dataclass(frozen=True)
class Traits:
    """What a generation does, as plain values; the rest of the kit asks for these and never for a name.

    Attributes:
        name: The generation's, as ``STACK=`` takes it.
        reader: What its transformers reads of a base.
        four_bit_platforms: Platforms on which its bitsandbytes trains in 4 bits.
        attention: The attention it has for the model, where each package is installed; best first for ``auto``.
        cuda: The CUDA its torch is built with, as it is locked.
        newest_capability: The newest compute capability that this CUDA builds for; None where none is known beyond it.
        fused_adamw_off_cuda: torch's fused AdamW works elsewhere than on CUDA.
        grows_allocator: torch's CUDA allocator is set to grow its segments.
        padding_free: Rows laid end to end are kept apart by their positions.
        compiled_layers: Decoder layers with an adapter on a 4-bit base compile without breaks.
        liger_kernel: The trainer knows liger-kernel, which is a package of its own.
        empty_cache_steps: The trainer knows ``torch_empty_cache_steps``.
        partial_checkpointing_from: The first transformers that checkpoints every n-th layer alone; None for none.
        weighs_by_tokens: The trainer's own loss of an update is its sum over the answers divided by their tokens.
        loss_in_tiles: The loss meets a tile of the logits at a time, and all of them never exist together.
        rotary_in_layers: Each layer keeps tables of all positions, and looks the rotation up.
        checkpoints_save_arguments: A checkpoint keeps its arguments, such as eager's mask, where autograd counts them.
        linear_casts_back: An unquantised layer with an adapter casts its result back to its input's type.
        norm_keeps_squares: A norm keeps the squares of its input for the backward pass.
        four_bit_keeps_input: A 4-bit multiplication keeps its input although the weight is frozen.
        fused_repeats_keys: Fused attention repeats keys and values for every query head, mask or none.
        held_to: What the planned memory of tensors on a GPU was compared with.
    """

    name: str
    reader: Reader
    four_bit_platforms: frozenset[str]
    attention: tuple[str, ...]
    cuda: str
    newest_capability: Version | None
    fused_adamw_off_cuda: bool
    grows_allocator: bool
    padding_free: bool
    compiled_layers: bool
    liger_kernel: bool
    empty_cache_steps: bool
    partial_checkpointing_from: Version | None
    weighs_by_tokens: bool
    loss_in_tiles: bool
    rotary_in_layers: bool
    checkpoints_save_arguments: bool
    linear_casts_back: bool
    norm_keeps_squares: bool
    four_bit_keeps_input: bool
    fused_repeats_keys: bool
    held_to: str

    @property
    def plain_attention(self) -> str:
        """The best attention that needs no package of its own, on any platform."""
        return "sdpa" if "sdpa" in self.attention else "eager"


@dataclass(frozen=True)
class Generation:
    """One file of ``kit.stacks``: what a generation does, and the few calls that it wants otherwise.

    Attributes:
        known: The versions these traits hold for, by package: from the first up to, but without, the second.
        locks: Its lock by operating system.
        usual_on: Platforms whose own command runs it; the default generation has the others.
        image_build_bytes: What a build of its image takes on the engine's disk: the image and the packages' cache
            beside it. Measured: see SETUP_H100.md.
        flash_attn_wheel: The address of the wheel that its image adds to the lock; empty for none.
        load_model: Calls ``from_pretrained`` on a folder, with the weights' type and the other options.
        training_arguments: Builds the trainer's arguments, from those that all generations share and
            ``torch_empty_cache_steps``.
        trainer_options: What the trainer is built with besides what all generations share, from a tokenizer and
            ``max_seq_length``.
        dataset: Wraps the numbers of rows for the trainer; the callable makes the columns of some of them.
    """

    traits: Traits
    known: Mapping[str, tuple[Version, Version]]
    locks: Mapping[str, Lock]
    load_model: Callable[[str, Any, Mapping[str, Any]], Any]
    training_arguments: Callable[[dict[str, Any], int | None], Any]
    trainer_options: Callable[[Any, int], dict[str, Any]]
    dataset: Callable[[Sequence[int], Callable[[Sequence[int]], dict[str, list[list[int]]]]], Any]
    image_build_bytes: int
    usual_on: frozenset[str] = frozenset()
    flash_attn_wheel: str = ""

    def unsupported(self, versions: Mapping[str, str]) -> list[str]:
        """Name each installed package outside the versions this generation is known in."""
        return [
            f"{package} {versions[package]} (known from {dotted(first)} to before {dotted(end)})"
            for package, (first, end) in self.known.items()
            if package in versions and not first <= version_tuple(versions[package]) < end
        ]

    def supports(self, versions: Mapping[str, str]) -> bool:
        """Tell whether installed versions are of this generation; a package that is missing is judged elsewhere."""
        return not self.unsupported(versions)

    def lock_for(self, platform: str) -> Lock:
        """Return the lock of a platform; the one for Linux where it has no other."""
        return self.locks.get("Darwin" if platform == "m4" else "Linux", self.locks["Linux"])


def dotted(version: tuple[int, ...]) -> str:
    """Write a version as people do."""
    return ".".join(map(str, version))
