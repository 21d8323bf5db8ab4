"""What memory is planned for: one micro-batch of one model, trained by one stack on one kind of device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.model.shape import ModelShape
    from kit.stacks.generation import Traits

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_DEVICES = {"h100": "cuda", "cuda": "cuda", "m4": "mps", "cpu": "cpu"}


def device_of(platform: str) -> str:
    """Name the kind of device a platform trains on: ``cuda``, ``mps`` or ``cpu``."""
    return _DEVICES[platform]


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one forward pass, as the collator pads them.

    Attributes:
        length: Tokens of the longest, which is what every row is padded to.
        has_padding: An attention mask exists: at least one row is shorter, or several rows lie end to end.
        loss_tokens: Tokens the loss is taken on; at most ``rows * (length - 1)``.
    """

    rows: int
    length: int
    has_padding: bool
    loss_tokens: int

    @property
    def tokens(self) -> int:
        """Tokens that are computed, padding included."""
        return self.rows * self.length

    @property
    def predicted_tokens(self) -> int:
        """Those that have one before them."""
        return self.rows * (self.length - 1)


@dataclass(frozen=True)
class TrainingStep:
    """Everything the formulas look at.

    Attributes:
        device: ``cuda``, ``mps`` or ``cpu``.
        attention: The implementation that runs, not ``auto``.
        every_n_layers: With gradient checkpointing, every n-th layer is recomputed and the others keep everything.
        capability: The NVIDIA GPU's compute capability, where it is known.
    """

    shape: ModelShape
    settings: Settings
    stack: Traits
    device: str
    attention: str
    batch: MicroBatch
    every_n_layers: int = 1
    capability: tuple[int, int] | None = None

    @property
    def in_4bit(self) -> bool:
        """The frozen base is quantised."""
        return self.settings.quantization.load_in_4bit

    @property
    def is_mixed(self) -> bool:
        """Training runs under autocast."""
        return self.settings.mixed_precision is not None

    @property
    def base_size(self) -> int:
        """Bytes of one element of the embedding, the norms and the residual stream."""
        return DTYPE_BYTES[self.settings.model.torch_dtype]

    @property
    def adapter_size(self) -> int:
        """Bytes of one adapter weight."""
        return DTYPE_BYTES[self.settings.lora.adapter_dtype]

    @property
    def compute_size(self) -> int:
        """Bytes of what a matrix multiplication takes in and gives out."""
        return 2 if self.is_mixed else self.base_size

    @property
    def dropout(self) -> bool:
        """The adapter's input is dropped out."""
        return self.settings.lora.lora_dropout > 0

    @property
    def checkpointed_layers(self) -> int:
        """Layers that keep their input only and are recomputed: the first, and every n-th after it."""
        if not self.settings.training.gradient_checkpointing:
            return 0
        return -(-self.shape.num_hidden_layers // self.every_n_layers)

    def is_checkpointed(self, layer: int) -> bool:
        """Whether a layer, counted from 0, is recomputed."""
        return self.settings.training.gradient_checkpointing and layer % self.every_n_layers == 0

    @property
    def attention_kernel(self) -> str:
        """What computes attention: ``scores`` holds them whole, ``fused`` never does.

        torch's SDPA falls back to whole scores on MPS where gradients are needed.
        """
        if self.attention == "eager":
            return "eager"
        return "math" if self.device == "mps" else "fused"
