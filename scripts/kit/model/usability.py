"""Check a base before it is loaded: its family, every tensor of its weights, the other files in its folder.

A base that passes loads without a missing, unexpected or newly initialised weight.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from kit.cli.command import found_and_fix
from kit.cli.failures import run_check
from kit.cli.findings import Finding, error, has_errors, ok, warning
from kit.files.regular_files import open_regular
from kit.model.base import CONFIG, INDEX, find_base
from kit.model.families import FAMILIES, beyond_older_words, completed
from kit.model.files import ModelFileError, leads_out, read_json
from kit.model.safetensors_header import FLOATS, read_header
from kit.model.shape import shape_in
from kit.model.tensors import tensors_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from kit.model.base import Base
    from kit.model.reader import Reader
    from kit.model.safetensors_header import Header, TensorHeader
    from kit.model.shape import ModelShape

_SHOWN = 3
# Older checkpoints contain the rotary frequencies, which transformers computes itself.
_COMPUTED = ".rotary_emb.inv_freq"
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_COMPARED_AT_ONCE = 16 << 20  # bytes


def require_whole(name_or_path: str, revision: str | None, reader: Reader, *, download: bool) -> Base:
    """Find a base and check that it can be loaded.

    Raises:
        ModelFileError: It cannot; the first reason, as one sentence with its fix.
    """
    base = find_base(name_or_path, revision, download=download)
    wrong = next((finding for finding in base_findings(base, reader) if finding.severity == "error"), None)
    if wrong:
        place = f"{wrong.where}: " if wrong.where else ""
        raise ModelFileError(f"{place}{wrong.message}; {wrong.fix}")
    return base


def base_findings(base: Base, reader: Reader) -> list[Finding]:
    """Check a base: its family, weights and the other files in its folder."""
    findings = [
        *run_check(lambda: _beside(base), "model.beside"),
        *run_check(lambda: _links(base), "model.link"),
        *run_check(lambda: _own_words(base), "model.config"),
    ]
    try:
        config = completed(base.config)
        shape = shape_in(config)
    except ValueError as exc:
        fix = "use an unquantised model of a supported family, or restore config.json from the model's repository"
        return [*findings, error("model.family", str(exc), fix, str(base.folder / CONFIG))]
    family = FAMILIES[config["model_type"]]
    where = str(base.folder / CONFIG)
    if config["model_type"] not in reader.families:
        message = f"is a {family.name} model, which the {reader.stack} stack does not support"
        findings.append(error("model.stack", message, f"STACK={reader.instead}" if reader.instead else "", where))
    elif reader.older_words and (beyond := beyond_older_words(config)):
        message = f"has {beyond}, which the {reader.stack} stack would silently ignore: it would be another model"
        findings.append(error("model.stack", message, f"STACK={reader.instead}", where))
    if has_errors(findings):
        return findings
    return [*findings, *run_check(lambda: _weights(base, config, shape, reader), "model.weights")]


def _beside(base: Base) -> list[Finding]:
    adapter = next((name for name in _ADAPTER if (base.folder / name).exists()), None)
    if adapter:
        message = f"is in the base's folder and would be loaded with it ({adapter})"
        fix = "merge the adapter first (make merge) and use the merged model, or move it out of the folder"
        return [error("model.adapter_inside", message, fix, str(base.folder / adapter))]
    pickles = sorted(path.name for path in base.folder.iterdir() if path.name.endswith(_PICKLES))
    if not pickles:
        return []
    message = f"not read, because loading a pickle can run code: {_listed(pickles)}"
    return [ok("model.not_read", message, str(base.folder))]


def _links(base: Base) -> list[Finding]:
    """Reject links out of the model's folder: small files are copied beside an adapter, which may be published."""
    found = []
    for name, path in {CONFIG: base.folder / CONFIG, **base.small}.items():
        target = leads_out(path, base.folder)
        if target:
            message = f"is a link to {target}, outside the model's folder, and would be published with the adapter"
            found.append(error("model.link", message, f"replace the link by the file {name} itself", str(path)))
    return found


def _own_words(base: Base) -> list[Finding]:
    where, config = str(base.folder / CONFIG), base.config
    found = []
    named = {CONFIG: config}
    if "tokenizer_config.json" in base.small:
        named["tokenizer_config.json"] = read_json(base.small["tokenizer_config.json"])
    for name, content in named.items():
        if content.get("auto_map"):
            message = "has an auto_map: the model needs its own code, which is never run"
            fix = f"use a model of a supported family ({', '.join(FAMILIES)})"
            found.append(error("model.remote_code", message, fix, str(base.folder / name)))
    if config.get("quantization_config"):
        kind = config["quantization_config"]
        method = kind.get("quant_method", "unknown") if isinstance(kind, dict) else "unknown"
        message = f"is already quantised ({method}): quantization.* would be ignored, and no adapter could be merged"
        fix = "use the unquantised model it was made from; the kit quantises it as configured"
        found.append(error("model.quantised", message, fix, where))
    return found


def _weights(base: Base, config: Mapping[str, Any], shape: ModelShape, reader: Reader) -> list[Finding]:
    try:
        headers = {name: read_header(path) for name, path in base.shards.items()}
    except ModelFileError as exc:
        return [error("model.weights", *found_and_fix(exc))]
    where = str(base.folder)
    there: dict[str, TensorHeader] = {}
    for header in headers.values():
        twice = sorted(there.keys() & header.tensors.keys())
        if twice:
            return [_wrong(f"contains {_counted(twice)} in two of its files", where)]
        there |= header.tensors
    problems = _names_and_shapes(base, there, tensors_of(config, shape), where)
    if base.index and not problems:
        problems = _index_agrees(base.index, headers)
    if problems:
        return problems
    silent = sorted(name for name, header in headers.items() if header.format != "pt")
    if reader.needs_format and silent:
        message = f'does not declare the format "pt", without which transformers {reader.transformers} does not read it'
        fix = f"STACK={reader.instead}; or load and save it once with a newer transformers"
        return [error("model.stack", message, fix, str(base.shards[silent[0]]))]
    found = []
    kinds = Counter(tensor.dtype for tensor in there.values())
    if len(kinds) > 1:
        listed = ", ".join(f"{count:,} in {dtype}" for dtype, count in kinds.most_common())
        message = f"its tensors have several dtypes ({listed}); all are loaded as model.torch_dtype"
        found.append(warning("model.dtype", message, "", where))
    size = "1 file" if len(headers) == 1 else f"{len(headers)} files"
    family = FAMILIES[config["model_type"]].name
    message = f"complete: {family}, {_size(shape.parameters)} parameters, {len(there):,} tensors in {size}, as expected"
    return [*found, ok("model.weights", message, where)]


def _names_and_shapes(
    base: Base, there: Mapping[str, TensorHeader], expected: Mapping[str, tuple[int, ...]], where: str
) -> list[Finding]:
    found = []
    missing = sorted(expected.keys() - there.keys())
    if missing:
        found.append(_wrong(f"lacks {_counted(missing)}, which would be initialised at random", where))
    more = sorted(name for name in there.keys() - expected.keys() if not is_computed(name))
    if more == ["lm_head.weight"]:
        more = [] if _same_bytes(base, there, "model.embed_tokens.weight", "lm_head.weight") else more
    if more:
        found.append(_wrong(f"contains {_counted(more)}, which its config.json does not describe", where))
    for name in sorted(expected.keys() & there.keys()):
        if there[name].shape != expected[name]:
            message = f"{name} has the shape {there[name].shape}, but config.json says {expected[name]}"
            found.append(_wrong(message, where))
            break
    strange = sorted(name for name in expected.keys() & there.keys() if there[name].dtype not in FLOATS)
    if strange:
        message = f"{_counted(strange)} of dtype {there[strange[0]].dtype}: the model is quantised or damaged"
        found.append(_wrong(message, where))
    return found


def is_computed(name: str) -> bool:
    """Tell whether a tensor is one that older checkpoints contain and nothing reads."""
    return name.endswith(_COMPUTED)


def _index_agrees(index: Path, headers: Mapping[str, Header]) -> list[Finding]:
    said: dict[str, str] = read_json(index)["weight_map"]
    holds = {name: shard for shard, header in headers.items() for name in header.tensors}
    wrong = sorted(name for name in said.keys() | holds.keys() if said.get(name) != holds.get(name))
    if not wrong:
        return []
    message = f"{INDEX} says {wrong[0]} is in {said.get(wrong[0])}, but it is in {holds.get(wrong[0])}"
    return [_wrong(message, str(index))]


def _same_bytes(base: Base, there: Mapping[str, TensorHeader], one: str, other: str) -> bool:
    """Tell whether two tensors are identical: a tied head that was saved all the same."""
    if (there[one].dtype, there[one].shape) != (there[other].dtype, there[other].shape):
        return False
    pieces = (_pieces(base, name, there[name]) for name in (one, other))
    return all(first == second for first, second in zip(*pieces, strict=True))


def _pieces(base: Base, name: str, tensor: TensorHeader) -> Iterable[bytes]:
    path = next(path for path in base.shards.values() if read_header(path).tensors.get(name) == tensor)
    with open_regular(path) as file:
        file.seek(tensor.begin)
        left = tensor.end - tensor.begin
        while left and (piece := file.read(min(left, _COMPARED_AT_ONCE))):
            left -= len(piece)
            yield piece


def _wrong(message: str, where: str) -> Finding:
    return error("model.weights", message, "download or copy the model's complete folder again", where)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 10**8 else f"{count / 1e6:.2f} M"


def _counted(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names):,} tensors ({_listed(names)})"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
