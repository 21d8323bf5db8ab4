"""What makes a step faster and leaves its mathematics alone: the current stack's own switches, set in one place.

Imports torch: import this module only where training is about to begin.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch

from kit.data.encoding import IGNORE_INDEX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.config.settings import Settings


def performance_arguments(settings: Settings) -> dict[str, Any]:
    """Return the performance settings that are training arguments; validation refused what the stack lacks."""
    training = settings.training
    arguments: dict[str, Any] = {}
    if training.gradient_checkpointing:
        arguments["gradient_checkpointing_kwargs"] = {"use_reentrant": False}
        if training.gradient_checkpointing_every_n_layers > 1:
            every = training.gradient_checkpointing_every_n_layers
            arguments["gradient_checkpointing_kwargs"]["every_n_layers"] = every
    if training.use_liger_kernel:
        arguments["use_liger_kernel"] = True
        # trl's own chunked loss is the fused head; Liger's would compute it a second time.
        arguments["liger_kernel_config"] = {"fused_linear_cross_entropy": False}
    return arguments


def leave_out_idle_window(config: Any, max_seq_length: int) -> None:
    """Drop a sliding window that no row is longer than: the same mathematics without a mask.

    With a window, SDPA is given a dense mask and loses its fast kernel even where the mask hides nothing
    (transformers#30461). Where only some layers have one, transformers asks for it whatever the length.
    """
    window = getattr(config, "sliding_window", None)
    some = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    if window is not None and max_seq_length <= window and not some:
        config.sliding_window = None


def compile_layers(model: Any) -> None:
    """Compile each decoder layer by itself: one graph for all of them, and quickly made."""
    for module in model.modules():
        if type(module).__name__.endswith("DecoderLayer"):
            module.compile(dynamic=True)


class PaddingFreeCollator:
    """Collates rows into one row without padding, each with positions of its own that begin at 0.

    No attention mask is made: attention tells the rows apart by their positions, exactly, as long as there is no mask
    and no cache (``transformers.masking_utils.find_packed_sequence_indices``). Kernels for rows of any length get
    the place where each begins, which they would else work out in every layer, waiting for the GPU each time.
    """

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
        """Lay rows end to end.

        Returns:
            ``input_ids``, ``labels`` and ``position_ids``, each of shape (1, tokens of all rows); ``cu_seq_lens_q`` and
            ``cu_seq_lens_k``, where each row begins and the end of the last, (rows + 1), int32; ``max_length_q`` and
            ``max_length_k``, tokens of the longest row, numbers.
        """
        input_ids: list[int] = []
        labels: list[int] = []
        positions: list[int] = []
        for row in rows:
            input_ids += row["input_ids"]
            # The first token of a row has nothing before it to be predicted from, and must not follow from a neighbour.
            labels += [IGNORE_INDEX, *row["labels"][1:]]
            positions += range(len(row["input_ids"]))
        columns = {"input_ids": input_ids, "labels": labels, "position_ids": positions}
        batch: dict[str, Any] = {name: torch.tensor([values], dtype=torch.long) for name, values in columns.items()}
        lengths = [len(row["input_ids"]) for row in rows]
        begins = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        for side in "qk":
            batch |= {f"cu_seq_lens_{side}": begins, f"max_length_{side}": max(lengths)}
        return batch
