"""Check an adapter's files before any library opens them: their place and the header of the weights.

Two files are an adapter: its configuration and its weights as safetensors. Nothing else in its folder is ever read, a
pickle beside them included. Imports neither torch nor safetensors.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.adapter.config_values import COPY_AGAIN, endings, is_plain
from kit.model import safetensors_header
from kit.model.files import ModelFileError, leads_out
from kit.model.safetensors_header import FLOATS
from kit.run_directory.history import RunError
from kit.run_directory.names import ADAPTER_CONFIG

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Bytes; one that names every module of a large model has some 50 kB, of one with many experts 1 MB.
_LARGEST_CONFIG = 2 * 1024**2
_PREFIX = "base_model.model."  # peft's, before the base's own name


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor: its type as the format names it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def adapter_file(folder: Path, name: str) -> Path:
    """Return the path of one of an adapter's two files.

    Raises:
        RunError: It is not there, is no plain file, or is a link out of the folder.
    """
    path = folder / name
    try:
        kind, size, target = path.stat().st_mode, path.stat().st_size, leads_out(path, folder)
    except OSError as exc:
        raise RunError(f"{path}: cannot be read ({exc.strerror}); {COPY_AGAIN}, weights as safetensors") from exc
    except RuntimeError as exc:  # links in a circle
        raise RunError(f"{path}: is a symlink loop; {COPY_AGAIN}") from exc
    if target:
        raise RunError(f"{path}: is a symlink out of its directory, to {target}; replace it with the file")
    if not stat.S_ISREG(kind):
        raise RunError(f"{path}: is not a regular file; {COPY_AGAIN}")
    if name == ADAPTER_CONFIG and size > _LARGEST_CONFIG:
        raise RunError(f"{path}: is {size:,} bytes large, and a configuration has a few thousand; {COPY_AGAIN}")
    return path


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Read what a safetensors file says it holds, and check that it can hold it.

    Raises:
        RunError: It is no whole safetensors file, or holds something else than floating-point numbers.
    """
    try:
        tensors = safetensors_header.read_header(path).tensors
    except ModelFileError as exc:
        raise RunError(str(exc)) from exc
    for name, tensor in sorted(tensors.items()):
        if tensor.dtype not in FLOATS:
            raise RunError(f"{path}: {name} has dtype {tensor.dtype}, but adapter weights are floats; {COPY_AGAIN}")
    return {name: TensorInfo(tensor.dtype, tensor.shape) for name, tensor in sorted(tensors.items())}


def split_name(tensor: str) -> tuple[str, str]:
    """Split a tensor's name into its module, as the base calls it, and what it is there: ``A``, ``B`` or ``""``."""
    module, found, half = tensor.removeprefix(_PREFIX).partition(".lora_")
    return module, half.removesuffix(".weight") if found else ""


def adapted_ranks(weights: Mapping[str, TensorInfo], saved_whole: list[str], place: str) -> dict[str, int]:
    """Return the rank of each adapted module by its full name; ``saved_whole`` is ``modules_to_save``.

    Raises:
        RunError: A tensor is neither half of a LoRA pair nor in ``saved_whole``, or the halves' shapes do not fit.
    """
    halves: dict[str, dict[str, tuple[int, ...]]] = {}
    others = []
    for name, info in weights.items():
        module, half = split_name(name)
        is_peft_s = name.startswith(_PREFIX)
        if is_peft_s and half in {"A", "B"} and len(info.shape) == 2 and is_plain(module):  # noqa: PLR2004 - a matrix
            halves.setdefault(module, {})[half] = info.shape
        elif half or not is_peft_s:
            raise RunError(f"{place}: holds {name}, which is not part of plain LoRA; use the peft that wrote it")
        else:
            others.append(module)
    for module, pair in halves.items():
        if set(pair) != {"A", "B"}:
            raise RunError(f"{place}: {module} has only one of lora_A and lora_B; {COPY_AGAIN}")
        if pair["A"][0] != pair["B"][1]:
            raise RunError(f"{place}: lora_A {pair['A']} and lora_B {pair['B']} of {module} do not match; {COPY_AGAIN}")
    saved = set(saved_whole)
    for name in others:
        module = name.rpartition(".")[0]
        if saved.isdisjoint(endings(module)) and not _is_copied(module, halves):
            raise RunError(f"{place}: holds {name}, which is not in its configuration; {COPY_AGAIN}")
    if not halves and not others:
        raise RunError(f"{place}: holds no weights; {COPY_AGAIN}")
    return {module: pair["A"][0] for module, pair in halves.items()}


def _is_copied(module: str, halves: Mapping[str, Any]) -> bool:
    """Tell whether a module is an adapted embedding's or head's base, whose weights peft saves beside the adapter's."""
    adapted, found, rest = module.partition(".base_layer")
    return bool(found) and not rest and adapted in halves and adapted.endswith(("embed_tokens", "lm_head"))
