"""Adapters from elsewhere, made readable for every peft since 0.7.0, or refused where that would change what they do.

A newer peft writes fields an older one refuses to read. Most of them say how the adapter was begun or trained, and
nothing about what it does now: they are left out, by name. One can be written in older words. The others change the
result, and an adapter that uses one of them is refused. Imports neither torch nor peft.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.json_files import read_object
from kit.records.history import RunError

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = "adapter_model.safetensors"
_LONGEST_HEADER = 100_000_000  # bytes: the format's own limit
# The fields of peft 0.7.0's LoraConfig. ``kit.stack.model`` saves no others.
KNOWN_IN_0_7 = frozenset(
    {
        "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode",
        "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout",
        "megatron_config", "megatron_core", "modules_to_save", "peft_type", "r", "rank_pattern", "revision",
        "target_modules", "task_type",
    }
)  # fmt: skip
# What a trained adapter no longer needs: how it began, how it was trained, how it is run.
_HISTORY = frozenset(
    {"peft_version", "eva_config", "runtime_config", "qalora_group_size", "ensure_weight_tying", "velora_config",
     "megatron_config", "megatron_core"}
)  # fmt: skip
# What the older peft has no code for; without it the same weights give other answers.
_CHANGES_RESULT = {
    "use_dora": "DoRA rescales every weight by a learnt magnitude",
    "lora_bias": "the adapter has biases of its own",
    "layer_replication": "layers of the base are repeated",
    "trainable_token_indices": "single rows of the embedding were trained",
    "target_parameters": "parameters are adapted that are not linear layers",
    "alora_invocation_tokens": "the adapter wakes up only behind certain tokens",
    "use_qalora": "inputs are pooled before the adapter",
    "arrow_config": "several adapters are mixed by a router",
    "use_bdlora": "the matrices are block-diagonal",
    "monteclora_config": "the weights are sampled",
    "kasa_config": "small singular values of the base are cut off",
    "corda_config": "the base's weights were changed when the adapter was made",
    "lora_ga_config": "the base's weights were changed when the adapter was made",
}
# Ways to begin an adapter that leave the base alone. The others take a part out of the base's own weights.
_HARMLESS_BEGINNINGS = frozenset({"gaussian", "eva", "orthogonal"})


@dataclass(frozen=True)
class Portable:
    """A configuration every peft since 0.7.0 reads.

    Attributes:
        config: The fields.
        left_out: Names of set fields that are not in it and change nothing.
        rewritten: What was said in older words, a sentence each.
    """

    config: dict[str, Any]
    left_out: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()

    @property
    def remarks(self) -> list[str]:
        """Say what became of the fields, a sentence each."""
        said = [f"written in older words: {what}" for what in self.rewritten]
        if self.left_out:
            said.append(f"left out, with no effect on the answers: {', '.join(self.left_out)}")
        return said


def outside_keys(config: dict[str, Any]) -> list[str]:
    """Name the fields peft 0.7.0 would not read."""
    return sorted(set(config) - KNOWN_IN_0_7)


def portable_config(config: dict[str, Any], modules: frozenset[str], place: str = "the adapter") -> Portable:
    """Say the same in peft 0.7.0's words.

    Args:
        config: ``adapter_config.json``, as any peft wrote it.
        modules: Full names of the modules the weights are for, as in ``model.layers.0.self_attn.q_proj``.
        place: What the messages begin with.

    Raises:
        RunError: A field that peft 0.7.0 does not have changes what the adapter does, or is not known here.
    """
    if config.get("peft_type") != "LORA":
        raise RunError(f"{place}: its peft_type is {config.get('peft_type')!r}; only LORA adapters can be used here")
    _check_types(config, place)
    _refuse_what_changes_the_result(config, place)
    kept = {key: value for key, value in sorted(config.items()) if key in KNOWN_IN_0_7 - _HISTORY}
    left_out = [key for key in (*outside_keys(config), "megatron_config") if config.get(key)]
    rewritten = []

    beginning = kept.get("init_lora_weights", True)
    if isinstance(beginning, str):
        if beginning not in _HARMLESS_BEGINNINGS:
            raise RunError(
                f"{place}: it was begun by {beginning!r}, which changes the base's own weights; "
                "convert it to plain LoRA first (peft's save_pretrained with path_initial_model_for_weight_conversion)"
            )
        kept["init_lora_weights"] = True
        left_out.append("init_lora_weights")
    if config.get("use_rslora"):
        if kept.get("rank_pattern") or kept.get("alpha_pattern"):
            raise RunError(f"{place}: use_rslora is set beside patterns of ranks; use it with a peft that knows it")
        # alpha / sqrt(r), written as alpha' / r.
        kept["lora_alpha"] = config["lora_alpha"] * math.sqrt(config["r"])
        left_out.remove("use_rslora")
        rewritten.append(f"use_rslora as lora_alpha {config['lora_alpha']} x sqrt({config['r']}): the same scaling")
    if config.get("exclude_modules") or config.get("target_modules") == "all-linear":
        kept["target_modules"] = sorted(modules)
        left_out = [key for key in left_out if key != "exclude_modules"]
        rewritten.append(f"target_modules as the names of the {len(modules)} modules that have weights")
    if isinstance(kept.get("target_modules"), list):
        kept["target_modules"] = sorted(kept["target_modules"])
    return Portable(kept, tuple(left_out), tuple(rewritten))


def _check_types(config: dict[str, Any], place: str) -> None:
    allowed: dict[str, tuple[type, ...]] = {
        "r": (int,),
        "lora_alpha": (int, float),
        "target_modules": (list, str),
        "rank_pattern": (dict, type(None)),
        "alpha_pattern": (dict, type(None)),
    }
    for key, types in allowed.items():
        if not isinstance(config.get(key, {}), types) or (key == "r" and config[key] < 1):
            raise RunError(f"{place}: {key} is {config.get(key)!r}; copy the adapter's complete folder")
    targets = config["target_modules"]
    if isinstance(targets, list) and not all(isinstance(name, str) for name in targets):
        raise RunError(f"{place}: target_modules holds something else than names; copy the adapter's complete folder")
    beginning = config.get("init_lora_weights", True)
    if not isinstance(beginning, (bool, str, type(None))):
        raise RunError(f"{place}: init_lora_weights is {beginning!r}; copy the adapter's complete folder")


def _refuse_what_changes_the_result(config: dict[str, Any], place: str) -> None:
    for key in outside_keys(config):
        if config[key] and key in _CHANGES_RESULT:
            raise RunError(f"{place}: {key} is set, and {_CHANGES_RESULT[key]}; use it with a peft that knows it")
        if config[key] and key not in _HISTORY | {"use_rslora", "exclude_modules"}:
            raise RunError(f"{place}: {key} is set, which the kit does not know; use it with the peft that wrote it")


def adapted_modules(names: list[str], place: str) -> frozenset[str]:
    """Name the modules a file of adapter weights is for.

    Raises:
        RunError: A tensor is neither half of a LoRA pair nor a module that was trained whole.
    """
    modules, others = set(), []
    for name in names:
        module, found, _ = name.removeprefix("base_model.model.").partition(".lora_")
        if found and name.endswith((".lora_A.weight", ".lora_B.weight")):
            modules.add(module)
        elif found:
            others.append(name)
    if others:
        raise RunError(
            f"{place}: holds {others[0]}, which is no part of plain LoRA; use it with the peft that wrote it"
        )
    return frozenset(modules)


def tensor_names(path: Path) -> list[str]:
    """List the tensors of a safetensors file from its header.

    Raises:
        RunError: It is none.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < _LONGEST_HEADER else None
    except OSError as exc:
        raise RunError(f"{path}: cannot be read ({exc.strerror}); weights are read as safetensors only") from exc
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise RunError(f"{path}: is not safetensors; copy the adapter's complete folder")
    return sorted(name for name in header if name != "__metadata__")


def read_portable(folder: Path) -> Portable:
    """Read an adapter's folder and say its configuration in peft 0.7.0's words.

    Raises:
        RunError: It cannot be read, or cannot be said.
    """
    path = folder / "adapter_config.json"
    try:
        config = read_object(path)
    except OSError as exc:
        raise RunError(f"{path}: cannot be read ({exc.strerror}); name an adapter's folder") from exc
    except ValueError as exc:
        raise RunError(f"{path}: {exc}; copy the adapter's complete folder") from exc
    modules = adapted_modules(tensor_names(folder / WEIGHTS), str(folder / WEIGHTS))
    return portable_config(config, modules, str(path))


def make_portable(folder: Path, copy: Path) -> Portable:
    """Copy an adapter so that every peft since 0.7.0 loads it; the weights are the same file, byte for byte.

    Raises:
        RunError: See ``read_portable``; nothing is written then.
        FileExistsError: ``copy`` is there already.
    """
    portable = read_portable(folder)
    copy.mkdir(parents=True)
    shutil.copyfile(folder / WEIGHTS, copy / WEIGHTS)
    (copy / "adapter_config.json").write_text(json.dumps(portable.config, indent=2) + "\n", encoding="utf-8")
    return portable
