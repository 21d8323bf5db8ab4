"""An adapter's folder written without any library: as small, and as wrong, as a test needs it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

QUERY = "model.layers.0.self_attn.q_proj"
PLAIN: dict[str, Any] = {
    "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none",
    "init_lora_weights": True, "lora_dropout": 0.05, "task_type": "CAUSAL_LM",
}  # fmt: skip


def shapes_of(*modules: str, rank: int = 4, width: int = 128) -> dict[str, tuple[int, ...]]:
    """The tensors of an adapter of square modules, by name."""
    halves = {"A": (rank, width), "B": (width, rank)}
    return {
        f"base_model.model.{module}.lora_{half}.weight": shape for module in modules for half, shape in halves.items()
    }


def safetensors(shapes: dict[str, tuple[int, ...]], *, dtype: str = "F32", item_bytes: int = 4) -> bytes:
    """Return a file of zeros."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * item_bytes
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


def write_adapter(folder: Path, shapes: dict[str, tuple[int, ...]] | None = None, **config: Any) -> Path:
    """Write an adapter that changes nothing; fields of its configuration may be given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**PLAIN, **config}), encoding="utf-8")
    (folder / "adapter_model.safetensors").write_bytes(safetensors(shapes or shapes_of(QUERY)))
    return folder
