"""What the rules look at: one configuration, one machine, one stack. All of it facts; nothing here asks the system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.config.platforms import CUDA_PLATFORMS

if TYPE_CHECKING:
    from kit.config.resolve import Resolved
    from kit.config.settings import Settings
    from kit.machine.facts import Gpu, Machine
    from kit.machine.platforms import Judgement
    from kit.stacks.stack import Stack


@dataclass(frozen=True)
class CheckContext:
    """One run, about to happen."""

    resolved: Resolved
    machine: Machine
    judgement: Judgement
    stack: Stack

    @property
    def settings(self) -> Settings:
        """The configuration, typed."""
        return self.resolved.settings

    @property
    def platform(self) -> str:
        """What the machine was judged to be."""
        return self.judgement.platform

    @property
    def gpu(self) -> Gpu | None:
        """The NVIDIA GPU a run uses, as judged; None elsewhere."""
        return self.judgement.gpu

    @property
    def on_cuda(self) -> bool:
        """Whether the run's device is an NVIDIA GPU."""
        return self.platform in CUDA_PLATFORMS

    @property
    def is_installed(self) -> bool:
        """Whether there is a stack to judge by."""
        return self.stack.is_installed

    @property
    def attention(self) -> str:
        """The attention implementation that will run: ``auto`` is the best that is installed."""
        return self.stack.attention_of(self.settings, self.platform)

    @property
    def uses_bfloat16(self) -> bool:
        """Whether anything is computed in bfloat16."""
        settings = self.settings
        in_4bit = settings.quantization.load_in_4bit and settings.quantization.bnb_4bit_compute_dtype == "bfloat16"
        return settings.training.bf16 or settings.model.torch_dtype == "bfloat16" or in_4bit

    def where(self, key: str) -> str:
        """Return the place of a key's value, for a finding."""
        return self.resolved.where(key)
