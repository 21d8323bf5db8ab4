"""Bases of any known family for tests, a few kilobytes each, written without torch; and ways to damage them."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from kit.model.families import completed
from kit.model.shape import shape_in
from kit.model.tensors import tensors_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_BYTES = {"F32": 4, "BF16": 2, "I8": 1}
Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


def write_base(folder: Path, model_type: str = "mistral", *, shards: int = 1, **config: Any) -> Path:
    """Write ``config.json`` and weights of zeros and ones in bfloat16, in one file or several with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_type": model_type, **SIZES, **config}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    full = completed(content)
    names = tensors_of(full, shape_in(full))
    tensors = {name: tensor(shape) for name, shape in names.items()}
    write_weights(folder, tensors, shards=shards)
    return folder


def tensor(shape: tuple[int, ...], dtype: str = "BF16", byte: bytes = b"\0") -> tuple[str, tuple[int, ...], bytes]:
    """Return one tensor whose bytes are all the same."""
    return dtype, shape, byte * (math.prod(shape) * _BYTES[dtype])


def write_weights(folder: Path, tensors: Tensors, *, shards: int = 1) -> None:
    """Write ``model.safetensors``, or several files and their index."""
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
        return
    names, index = list(tensors), {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        mine = names[number::shards]
        write_safetensors(folder / file, {name: tensors[name] for name in mine})
        index |= dict.fromkeys(mine, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}), encoding="utf-8")


def write_safetensors(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> None:
    """Write the format by hand: the length, the header, the tensors one behind the other."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"} if metadata is None else metadata}
    at = 0
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(content)]}
        at += len(content)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(content for _, _, content in tensors.values()))


def read_weights(path: Path) -> Tensors:
    """Read such a file back."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header: Mapping[str, Any] = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    return {
        name: (said["dtype"], tuple(said["shape"]), data[slice(*said["data_offsets"])])
        for name, said in header.items()
        if name != "__metadata__"
    }


def change_weights(folder: Path, **changes: Any) -> None:
    """Replace tensors of ``model.safetensors``; None takes one out. Dots in names are written ``__``."""
    tensors = read_weights(folder / "model.safetensors")
    for name, value in changes.items():
        tensors.pop(name.replace("__", "."), None)
        if value is not None:
            tensors[name.replace("__", ".")] = value
    write_weights(folder, tensors)


def change_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file, which is made where it is missing; None takes one out."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    content |= changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}), encoding="utf-8")
