"""A base model's folder that was damaged: it is refused with a reason, or every weight in memory is one of its files'.

Held against what the safetensors library reads: of a base that is taken no weight may be drawn at random, left out or
come from elsewhere. A base that only looks different (in more files, its head written though it is tied) must be taken.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.cli.interpreter import PROJECT_ROOT
from kit.cli.quiet_libraries import quiet_imports
from kit.config.resolve import resolve
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.template import TemplateError
from kit.data.turns import Message
from kit.model.base import CONFIG, INDEX, WHOLE
from kit.model.files import ModelFileError
from kit.model.usability import base_findings, require_whole
from kit.stacks.stack import installed_stack
from torture.damage import BYTES
from torture.fuzzing import FaultError, Mutant, scratch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

Files = dict[str, bytes]
_SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0,
    "sliding_window": None, "tie_word_embeddings": False,
}  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 64, 10**18, 10**400, 0.5, -1e308, 1e308, float("nan"), "", "text", "silu", [],
    [1], ["full_attention"], {}, {"a": 1}, {"type": "linear", "factor": 2.0}, {"rope_type": "yarn"}, "llama", "gemma2",
)  # fmt: skip
_TURNS = (Message("user", "Write the word amber backwards."), Message("assistant", "rebma", is_answer=True))


@dataclass(frozen=True)
class BaseFuzzer:
    """Damaged folders of one small base; see ``torture.fuzzing.Fuzzer``."""

    name: str = "bases"
    suffix: str = ".json"

    def mutant(self, source: Random) -> Mutant:
        """Damage a folder in one way, or make it look different."""
        kind = source.choice(sorted(_WAYS))
        files = _WAYS[kind](source, dict(_base()))
        changed = {name: _shown(content) for name, content in files.items() if content != _base().get(name)}
        gone = sorted(set(_base()) - set(files))
        kept = json.dumps({"kind": kind, "changed": changed, "gone": gone}, indent=1)
        return Mutant(kind, kept.encode(), files)

    def judge(self, mutant: Mutant) -> dict[str, int]:
        """Judge the folder and, where it passes, load it and compare every weight; see ``Fuzzer``."""
        folder = _folder(mutant.details)
        try:
            base = require_whole(str(folder), None, installed_stack().traits.reader, download=False)
            chat = ChatTokenizer.load(str(folder))
            chat.encode(chat.render(_TURNS))
        except ModelFileError as exc:
            _check_words(str(exc), folder)
            if mutant.kind in _HARMLESS:
                raise FaultError(f"refused, and it is whole: {exc!s:.200}") from exc
            return {"refused": 1}
        except TemplateError:
            return {"refused": 1}  # with each of its rows
        if any(finding.id.endswith(".crashed") for finding in base_findings(base, installed_stack().traits.reader)):
            raise FaultError("a check crashed")
        if mutant.kind in _NEVER:
            raise FaultError("taken, and it must not be")
        _compare_loaded(folder)
        return {"taken, each weight as in its files": 1}


def _check_words(said: str, folder: Path) -> None:
    found, _, fix = said.rpartition("; ")
    if not (found and fix) or len(said.splitlines()) > 1 or str(folder) not in said:
        raise FaultError(f"refused without place, words or fix, or in several lines: {said:.300}")


def _compare_loaded(folder: Path) -> None:
    with quiet_imports():
        import torch
        from safetensors.torch import load_file

        from kit.modeling.model import load_base_model
    overrides = [
        f"model.model_name_or_path={folder}", "quantization.load_in_4bit=false", "model.torch_dtype=float32",
        "training.bf16=false", "quantization.bnb_4bit_compute_dtype=float32", "model.attn_implementation=eager",
    ]  # fmt: skip
    settings = resolve(PROJECT_ROOT / "configs" / "training_config_demo.yaml", overrides).settings
    state = load_base_model(settings, "cpu").state_dict()
    files: dict[str, Any] = {}
    for path in folder.glob("*.safetensors"):
        files |= load_file(path)
    for name, weight in state.items():
        own = files.get(name, files.get("model.embed_tokens.weight") if name == "lm_head.weight" else None)
        if own is None:
            raise FaultError(f"{name} is in memory, and in no file")
        if not torch.equal(weight.nan_to_num(), own.to(weight.dtype).nan_to_num()):
            raise FaultError(f"{name} is another one in memory than in its file")


def _folder(files: Files) -> Path:
    folder = _scratch() / "base"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        if content.startswith(_LINK):
            (folder / name).symlink_to(content.removeprefix(_LINK).decode())
        else:
            (folder / name).write_bytes(content)
    return folder


_LINK = b"link to "


@functools.cache
def _scratch() -> Path:
    return scratch("fuzz-bases-")


@functools.cache
def _base() -> Files:
    with quiet_imports():
        from kit.demo.base import new_model, save_base
        from kit.demo.tokenizer import byte_tokenizer

    folder = _scratch() / "whole"
    tokenizer = byte_tokenizer()
    save_base(new_model(tokenizer.get_vocab_size(), 0, _SHAPE), tokenizer, folder, _SHAPE)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _shown(content: bytes) -> str:
    return content.decode(errors="backslashreplace") if len(content) < 4_000 else f"{len(content):,} bytes"


# --- The weights, as (dtype, shape, bytes) by name -----------------------------------------------------------------

Tensors = dict[str, tuple[str, list[int], bytes]]


def _tensors(files: Files) -> Tensors:
    content = files[WHOLE]
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    return {
        name: (said["dtype"], said["shape"], data[slice(*said["data_offsets"])])
        for name, said in header.items()
        if name != "__metadata__"
    }


def _file(tensors: Tensors, *, says_torch: bool = True) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}} if says_torch else {}
    at = 0
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(content)]}
        at += len(content)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(content for _, _, content in tensors.values())


def _with(files: Files, tensors: Tensors) -> Files:
    return {**files, WHOLE: _file(tensors)}


def _drop(source: Random, files: Files) -> Files:
    tensors = _tensors(files)
    for name in source.sample(sorted(tensors), source.choice([1, 1, 2, 9])):
        del tensors[name]
    return _with(files, tensors)


def _add(source: Random, files: Files) -> Files:
    tensors = _tensors(files)
    name = source.choice(sorted(tensors))
    other = source.choice(["model.layers.2.mlp.up_proj.weight", f"{name}.bias", name.upper(), f"base_model.{name}", ""])
    return _with(files, {**tensors, other: tensors[name]})


def _rename(source: Random, files: Files) -> Files:
    tensors = _tensors(files)
    name = source.choice(sorted(tensors))
    other = source.choice([name.removeprefix("model."), name.replace("weight", "Weight"), f"{name} ", f"model.{name}"])
    if other in tensors:
        return _drop(source, files)
    return _with(files, {other if key == name else key: value for key, value in tensors.items()})


def _reshape(source: Random, files: Files) -> Files:
    tensors = _tensors(files)
    name = source.choice([key for key, (_, shape, _) in tensors.items() if len(set(shape)) > 1])
    dtype, shape, content = tensors[name]
    size = shape[0] * shape[1]
    other = source.choice([[shape[1], shape[0]], [size], [1, *shape], [shape[0] * 2, shape[1] // 2]])
    return _with(files, {**tensors, name: (dtype, other, content)})


def _retype(source: Random, files: Files) -> Files:
    tensors = _tensors(files)
    name = source.choice(sorted(tensors))
    _, shape, content = tensors[name]
    return _with(files, {**tensors, name: (source.choice(["I32", "U32", "I64", "F4", "f32", ""]), shape, content)})


def _halve(source: Random, files: Files) -> Files:
    """Write a matrix in float16, which the library loads as it is: other types beside each other are fine."""
    tensors = _tensors(files)
    name = source.choice(sorted(tensors))
    _, shape, content = tensors[name]
    return _with(files, {**tensors, name: ("F16", shape, content[::2][: len(content) // 2])})


def _swap(source: Random, files: Files) -> Files:
    tensors = _tensors(files)
    one = source.choice(sorted(tensors))
    alike = [name for name, value in tensors.items() if value[1] == tensors[one][1]]
    other = source.choice(alike)
    return _with(files, {**tensors, one: tensors[other], other: tensors[one]})


def _unsaid(_source: Random, files: Files) -> Files:
    """Leave out the word that transformers 4.36 cannot do without."""
    return {**files, WHOLE: _file(_tensors(files), says_torch=False)}


def _bytes_of(name: str) -> Callable[[Random, Files], Files]:
    def damage(source: Random, files: Files) -> Files:
        way = source.choice(sorted(BYTES))
        content = files[name]
        # Most bytes of the weights are numbers; what is looked for lies in the first of them.
        head = content[:3_000] if source.random() < 0.8 else content
        return {**files, name: BYTES[way](source, head) + content[len(head) :]}

    return damage


# --- Several files and their index ---------------------------------------------------------------------------------


def _sharded(source: Random, files: Files) -> Files:
    tensors = _tensors(files)
    count = source.randint(2, 4)
    names = sorted(tensors)
    source.shuffle(names)
    parts = {f"model-{at:05d}-of-{count:05d}.safetensors": names[at::count] for at in range(count)}
    index = {name: file for file, held in parts.items() for name in held}
    written = {file: _file({name: tensors[name] for name in held}) for file, held in parts.items()}
    rest = {name: content for name, content in files.items() if name != WHOLE}
    return {**rest, **written, INDEX: json.dumps({"metadata": {}, "weight_map": index}).encode()}


def _bent(source: Random, files: Files) -> Files:
    sharded = _sharded(source, files)
    index = json.loads(sharded[INDEX])
    entries = index["weight_map"]
    name = source.choice(sorted(entries))
    files_named = sorted(set(entries.values()))
    way = source.randrange(5)
    if way == 0:
        entries[name] = source.choice(["model.bin", "../x.safetensors", "/x.safetensors", "none.safetensors", "", 3])
    elif way == 1:
        entries[name] = source.choice([file for file in files_named if file != entries[name]])
    elif way == 2:
        del entries[name]
    elif way == 3:
        entries[f"{name}.more"] = entries[name]
    else:
        index = source.choice([{}, [], {"weight_map": {}}, {"weight_map": source.choice(_VALUES)}, "x"])
    return {**sharded, INDEX: json.dumps(index).encode()}


def _shard_gone(source: Random, files: Files) -> Files:
    sharded = _sharded(source, files)
    del sharded[source.choice([name for name in sharded if name.startswith("model-")])]
    return sharded


def _shard_of_another(source: Random, files: Files) -> Files:
    sharded = _sharded(source, files)
    one, other = source.sample([name for name in sharded if name.startswith("model-")], 2)
    return {**sharded, one: sharded[other]}


def _both(source: Random, files: Files) -> Files:
    return {**_sharded(source, files), WHOLE: files[WHOLE]}


# --- What stands in config.json, and what lies beside it -----------------------------------------------------------


def _config_with(source: Random, files: Files) -> Files:
    config = json.loads(files[CONFIG])
    more = (
        "quantization_config",
        "auto_map",
        "num_local_experts",
        "head_dim",
        "layer_types",
        "rope_scaling",
        "mlp_bias",
    )
    for _ in range(source.choice([1, 1, 2, 4])):
        key = source.choice([*sorted(config), *more, "rope_parameters", "attention_bias", "use_cache", "own"])
        if source.random() < 0.2:
            config.pop(key, None)
        else:
            config[key] = source.choice(_VALUES)
    return {**files, CONFIG: json.dumps(config).encode()}


def _adapter_beside(source: Random, files: Files) -> Files:
    return {**files, source.choice(["adapter_config.json", "adapter_model.bin", "adapter_model.safetensors"]): b"{}"}


def _strangers(source: Random, files: Files) -> Files:
    names = (
        "pytorch_model.bin",
        "consolidated.safetensors.index",
        "modeling_own.py",
        "README.md",
        "model.pt",
        "x.gguf",
    )
    return {**files, source.choice(names): source.randbytes(40)}


def _linked_out(source: Random, files: Files) -> Files:
    name = source.choice(
        ["special_tokens_map.json", "tokenizer_config.json", "chat_template.jinja", "added_tokens.json"]
    )
    target = _scratch() / "elsewhere.json"
    target.write_bytes(files.get(name, b"{}"))
    return {**files, name: _LINK + os.fsencode(target)}


def _tied(source: Random, files: Files) -> Files:
    config, tensors = {**json.loads(files[CONFIG]), "tie_word_embeddings": True}, _tensors(files)
    if source.random() < 0.5:
        del tensors["lm_head.weight"]
    else:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    return {**_with(files, tensors), CONFIG: json.dumps(config).encode()}


_WAYS: dict[str, Callable[[Random, Files], Files]] = {
    "tensors dropped": _drop,
    "a tensor added": _add,
    "a tensor renamed": _rename,
    "a tensor reshaped": _reshape,
    "a tensor of another type": _retype,
    "a tensor in 16 bits": _halve,
    "two tensors swapped": _swap,
    "no word of torch": _unsaid,
    "weights damaged": _bytes_of(WHOLE),
    "in several files": _sharded,
    "an index bent": _bent,
    "a shard gone": _shard_gone,
    "a shard of another": _shard_of_another,
    "an index beside a whole file": _both,
    "config.json changed": _config_with,
    "config.json damaged": _bytes_of(CONFIG),
    "tokenizer.json damaged": _bytes_of("tokenizer.json"),
    "tokenizer_config.json damaged": _bytes_of("tokenizer_config.json"),
    "an adapter beside": _adapter_beside,
    "strangers beside": _strangers,
    "a link to elsewhere": _linked_out,
    "a tied head": _tied,
}
_HARMLESS = frozenset(
    {"in several files", "strangers beside", "a tied head", "two tensors swapped", "a tensor in 16 bits"}
)
_NEVER = frozenset(
    {"tensors dropped", "a tensor added", "a tensor renamed", "a tensor reshaped", "a tensor of another type",
     "an index bent", "a shard gone", "a shard of another", "an index beside a whole file", "an adapter beside",
     "a link to elsewhere"}
)  # fmt: skip
