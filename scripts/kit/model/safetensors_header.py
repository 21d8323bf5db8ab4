"""A safetensors file's header, checked against the file's size; no tensor is read.

The format: eight bytes with the length of a JSON object, that object, then the tensors without a gap
(https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.files.regular_files import open_regular
from kit.model.files import ModelFileError

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST_HEADER = 100_000_000  # bytes: the format's own limit
# Bytes per element; types of less than a byte are for quantised checkpoints, which are not supported.
_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
_METADATA = "__metadata__"
FLOATS = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True)
class TensorHeader:
    """One tensor as a header describes it."""

    dtype: str  # as the format names it: BF16
    shape: tuple[int, ...]
    begin: int  # byte in the file
    end: int  # past the last byte


@dataclass(frozen=True)
class Header:
    """The header of one file."""

    tensors: dict[str, TensorHeader]
    format: str  # as declared, "pt" for torch; empty for none


def read_header(path: Path) -> Header:
    """Read a file's header and check it against the file's size.

    Raises:
        ModelFileError: It is not a safetensors file, or incomplete; one sentence with its fix.
    """
    try:
        size = path.stat().st_size
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if not 1 < length <= min(_LONGEST_HEADER, size - 8):
                raise _broken(path, "its first 8 bytes are not a header's length")
            header = json.loads(file.read(length), object_pairs_hook=_once)
    except OSError as exc:
        raise ModelFileError(f"{path}: cannot be read ({exc.strerror}); give this user read permission") from exc
    except (ValueError, RecursionError) as exc:
        raise _broken(path, "its header is not JSON") from exc
    if not isinstance(header, dict):
        raise _broken(path, "its header is not a JSON object")
    tensors = {name: _tensor(path, name, entry, 8 + length) for name, entry in header.items() if name != _METADATA}
    at = 8 + length
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != at:
            raise _broken(path, f"{name} does not begin where the tensor before it ends")
        at = tensor.end
    if at != size:
        raise _broken(path, f"it has {size:,} bytes, but its header describes {at:,}")
    metadata = header.get(_METADATA)
    said = metadata.get("format") if isinstance(metadata, dict) else None
    return Header(tensors, said if isinstance(said, str) else "")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name appears twice")
    return dict(pairs)


def _tensor(path: Path, name: str, said: Any, data: int) -> TensorHeader:
    keys = said if isinstance(said, dict) else {}
    dtype, shape, offsets = keys.get("dtype"), _sizes(keys.get("shape")), _sizes(keys.get("data_offsets"))
    if not isinstance(dtype, str) or dtype not in _BYTES:
        raise _broken(path, f"{name} has the dtype {dtype!r:.40}")
    if shape is None or offsets is None or len(offsets) != 2:  # noqa: PLR2004 - a begin and an end
        raise _broken(path, f"{name} has no shape or no offsets")
    if offsets[1] - offsets[0] != math.prod(shape) * _BYTES[dtype]:
        raise _broken(path, f"{name} has offsets that do not match its shape")
    return TensorHeader(dtype, shape, data + offsets[0], data + offsets[1])


def _sizes(value: Any) -> tuple[int, ...] | None:
    is_list = isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)
    return tuple(value) if is_list else None


def _broken(path: Path, reason: str) -> ModelFileError:
    return ModelFileError(f"{path}: is not a complete safetensors file ({reason}); copy or download it again")
