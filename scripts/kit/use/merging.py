"""Write an adapter into its base: shard by shard, no model built, the same on both stacks.

Each adapted matrix W becomes W + scaling * B A, summed in float32 and rounded once to the type that is written. One
shard at a time is in memory. Everything but the weights and the type named in ``config.json`` is copied from the base
as it is: a tokenizer that transformers 5 saved would not load in transformers 4. Where the base's own would not either,
the reference stack writes it in an equal older form. Imports torch.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from kit.adapter.portable import read_portable
from kit.adapter.tensor_file import split_name
from kit.model import base as model_base
from kit.model.files import ModelFileError, read_json
from kit.model.safetensors_header import read_header
from kit.model.tokenizer_files import make_readable
from kit.model.tokenizer_form import FormError
from kit.run_directory.history import RunError
from kit.run_directory.names import ADAPTER_WEIGHTS

_DISK_SLACK = 64 * 1024**2  # headers, tokenizer, card


@dataclass(frozen=True)
class BaseWeights:
    """Where a base's weights are.

    Attributes:
        shards: Its safetensors files, by the name they have in the folder.
        index: The index's content; None where there is one file.
        shapes: Shape of each tensor.
    """

    shards: dict[str, Path]
    index: dict[str, Any] | None
    shapes: dict[str, tuple[int, ...]]

    def bytes_as(self, dtype: str) -> int:
        """Size of all tensors in a type."""
        each = getattr(torch, dtype).itemsize
        return sum(each * torch.Size(shape).numel() for shape in self.shapes.values())


@dataclass(frozen=True)
class LoraPair:
    """One adapted matrix's ``scaling * B A``: ``a`` is (r, inputs), ``b`` is (outputs, r)."""

    a: torch.Tensor
    b: torch.Tensor
    scaling: float
    is_transposed: bool

    def delta(self) -> torch.Tensor:
        """Return what is added to the base's matrix, in float32."""
        delta = (self.b.float() @ self.a.float()) * self.scaling
        return delta.T if self.is_transposed else delta


@dataclass(frozen=True)
class AdapterWeights:
    """An adapter, ready to be added.

    Attributes:
        pairs: By the name of the base's matrix.
        replaced: Tensors that were trained whole and take the base's place.
    """

    pairs: dict[str, LoraPair]
    replaced: dict[str, torch.Tensor]


def find_base(name_or_path: str, revision: str | None, *, download: bool) -> BaseWeights:
    """Find a base's safetensors, in a folder, the cache or on the hub.

    Raises:
        RunError: They are missing or incomplete.
    """
    try:
        base = model_base.find_base(name_or_path, revision, download=download)
        headers = [read_header(path) for path in base.shards.values()]
        index = read_json(base.index) if base.index else None
    except ModelFileError as exc:
        raise RunError(str(exc)) from exc
    shapes = {name: tensor.shape for header in headers for name, tensor in header.tensors.items()}
    return BaseWeights(base.shards, index, shapes)


def read_adapter(folder: Path, base: BaseWeights) -> AdapterWeights:
    """Read an adapter and match each of its tensors with one of the base's.

    Raises:
        RunError: It is not plain LoRA, or does not fit this base.
    """
    config = read_portable(folder).config
    halves: dict[str, dict[str, torch.Tensor]] = {}
    replaced: dict[str, torch.Tensor] = {}
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            module, half = split_name(name)
            if half:
                halves.setdefault(f"{module}.weight", {})[half] = file.get_tensor(name)
            else:
                replaced[module.replace(".base_layer.", ".")] = file.get_tensor(name)
    alphas = config.get("alpha_pattern") or {}
    pairs = {
        target: LoraPair(
            pair["A"],
            pair["B"],
            float(alphas.get(target.removesuffix(".weight"), config["lora_alpha"])) / pair["A"].shape[0],
            bool(config.get("fan_in_fan_out")),
        )
        for target, pair in halves.items()
    }
    for target, shape in [
        *((target, tuple(pair.delta().shape)) for target, pair in pairs.items()),
        *((target, tuple(tensor.shape)) for target, tensor in replaced.items()),
    ]:
        if base.shapes.get(target) != shape:
            there = base.shapes.get(target)
            found_there = f"{there} here" if there else "missing here"
            raise RunError(
                f"{folder}: is for a base with {target} of {shape}, which is {found_there}; use its own base"
            )
    return AdapterWeights(pairs, replaced)


def room_needed(base: BaseWeights, dtype: str) -> int:
    """Bytes of disk the merged model takes."""
    return base.bytes_as(dtype) + _DISK_SLACK


def write_merged(
    base: BaseWeights,
    adapter: AdapterWeights,
    folder: Path,
    dtype: str,
    done: Callable[[int], object] = lambda _bytes: None,
) -> None:
    """Write the merged weights under the base's file names, one shard in memory at a time.

    ``copy_the_rest`` has written to ``folder`` already; ``done`` gets each tensor's size in bytes as written.

    Raises:
        RunError: A value is beyond the type's range.
    """
    written_as = getattr(torch, dtype)
    total = 0
    for name, path in base.shards.items():
        tensors: dict[str, torch.Tensor] = {}
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - no mapping
                tensors[key] = _merged(file.get_tensor(key), adapter, key, written_as)
                total += tensors[key].nbytes
                done(tensors[key].nbytes)
        save_file(tensors, folder / name, metadata={"format": "pt"})
        # The library writes for its owner alone.
        shutil.copymode(folder / "config.json", folder / name)
    if base.index:
        index = {**base.index, "metadata": {**base.index.get("metadata", {}), "total_size": total}}
        (folder / model_base.INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _merged(tensor: torch.Tensor, adapter: AdapterWeights, key: str, dtype: torch.dtype) -> torch.Tensor:
    tensor = adapter.replaced.get(key, tensor)
    if key in adapter.pairs:
        tensor = tensor.float() + adapter.pairs[key].delta()
    if not tensor.is_floating_point():
        return tensor.contiguous()
    merged = tensor.to(dtype).contiguous()
    if not torch.isfinite(merged).all() and torch.isfinite(tensor).all():
        raise RunError(f"{key}: has values beyond {dtype}'s range; use --dtype bfloat16 or --dtype float32")
    return merged


def copy_the_rest(name_or_path: str, revision: str | None, folder: Path, dtype: str, *, download: bool) -> None:
    """Copy the base's tokenizer files as they are, and its ``config.json`` with the type that was written.

    Raises:
        ModelFileError: The base has no ``config.json``.
    """
    base = model_base.find_base(name_or_path, revision, download=download)
    config = dict(base.config)
    # transformers 5 writes dtype and reads both; 4.36 knows only torch_dtype.
    config.pop("dtype", None)
    config["torch_dtype"] = dtype
    (folder / model_base.CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name, path in base.small.items():
        shutil.copyfile(path, folder / name)
    with contextlib.suppress(FormError):  # then it is for newer libraries alone, as the base is
        make_readable(folder)
