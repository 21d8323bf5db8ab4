"""Make adapters readable for every peft since 0.7.0, or refuse where that would change their answers.

peft opens what an ``adapter_config.json`` asks for: it imports modules, unpickles other adapters, follows regular
expressions for minutes. So none reaches it: each adapter is loaded from a private copy, whose configuration is written
here from a list of fields and values that are known, checked against the weights the file holds.

A newer peft writes fields an older one refuses to read. Most of them say how the adapter was begun or trained, and
nothing about what it does now: they are left out, by name. Some have an older equivalent. The others change
the result, and an adapter that uses one of them is refused. Imports neither torch nor peft.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.adapter.config_values import COPY_AGAIN, check_values, endings, plain_names
from kit.adapter.tensor_file import adapted_ranks, adapter_file, read_header
from kit.files.json_files import read_object
from kit.run_directory.history import RunError
from kit.run_directory.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kit.adapter.tensor_file import TensorInfo

# The fields of peft 0.7.0's LoraConfig. ``kit.modeling.model`` saves no others.
KNOWN_IN_0_7 = frozenset(
    {
        "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode",
        "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout",
        "megatron_config", "megatron_core", "modules_to_save", "peft_type", "r", "rank_pattern", "revision",
        "target_modules", "task_type",
    }
)  # fmt: skip
# What a trained adapter no longer needs: how it began, how it was trained, how it is run, which code once wrapped it.
_HISTORY = frozenset(
    {"peft_version", "eva_config", "runtime_config", "qalora_group_size", "ensure_weight_tying", "velora_config",
     "megatron_config", "megatron_core", "auto_mapping", "loftq_config"}
)  # fmt: skip
# What chooses modules; the weights themselves say which ones.
_CHOOSES = frozenset({"layers_to_transform", "layers_pattern"})
# What the older peft has no code for; without it the same weights give other answers.
_CHANGES_RESULT = {
    "use_dora": "DoRA rescales every weight by a learnt magnitude",
    "lora_bias": "the adapter has biases of its own",
    "layer_replication": "layers of the base are repeated",
    "trainable_token_indices": "single rows of the embedding were trained",
    "target_parameters": "parameters are adapted that are not linear layers",
    "alora_invocation_tokens": "the adapter is active only after certain tokens",
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
_WRITTEN_BY_ALL = {"megatron_core": "megatron.core"}  # peft 0.7's default, in every adapter of its


@dataclass(frozen=True)
class Portable:
    """A configuration every peft since 0.7.0 reads.

    Attributes:
        left_out: Names of set fields that are not in it and change nothing.
        rewritten: What was rewritten as older fields, a sentence each.
    """

    config: dict[str, Any]
    left_out: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()

    @property
    def remarks(self) -> list[str]:
        """Return a sentence for each kind of change."""
        said = [f"rewritten for peft 0.7.0: {what}" for what in self.rewritten]
        if self.left_out:
            said.append(f"left out (no effect on answers): {', '.join(self.left_out)}")
        return said


def outside_keys(config: dict[str, Any]) -> list[str]:
    """Name the fields peft 0.7.0 would not read."""
    return sorted(set(config) - KNOWN_IN_0_7)


def portable_config(config: dict[str, Any], weights: Mapping[str, TensorInfo], place: str = "the adapter") -> Portable:
    """Return ``adapter_config.json`` of any peft in peft 0.7.0's fields.

    Raises:
        RunError: A field or a value is not known here, changes what the adapter does in peft 0.7.0, or does not fit the
            weights.
    """
    if config.get("peft_type") != "LORA":
        raise RunError(f"{place}: peft_type is {config.get('peft_type')!r}; only LORA is supported; use a LoRA adapter")
    check_values(config, place)
    _refuse_what_changes_the_result(config, place)
    ranks = adapted_ranks(weights, plain_names(config, "modules_to_save", place), place)
    kept = {key: value for key, value in sorted(config.items()) if key in KNOWN_IN_0_7 - _HISTORY - _CHOOSES}
    left_out = [
        key
        for key in (*outside_keys(config), *sorted(_HISTORY & KNOWN_IN_0_7))
        if config.get(key) and config[key] != _WRITTEN_BY_ALL.get(key)
    ]
    rewritten = []

    beginning = kept.get("init_lora_weights", True)
    if isinstance(beginning, str):
        if beginning not in _HARMLESS_BEGINNINGS:
            raise RunError(
                f"{place}: it was initialised by {beginning!r}, which changes the base's own weights; "
                "convert it to plain LoRA first (peft's save_pretrained with path_initial_model_for_weight_conversion)"
            )
        kept["init_lora_weights"] = True
        left_out.append("init_lora_weights")
    if config.get("use_rslora"):
        if kept.get("rank_pattern") or kept.get("alpha_pattern"):
            raise RunError(f"{place}: use_rslora is combined with rank_pattern; use a peft version that supports it")
        # alpha / sqrt(r), written as alpha' / r.
        kept["lora_alpha"] = config["lora_alpha"] * math.sqrt(config["r"])
        left_out.remove("use_rslora")
        rewritten.append(f"use_rslora as lora_alpha {config['lora_alpha']} x sqrt({config['r']}): the same scaling")
    kept |= _patterns(config, ranks, place)
    targets = config["target_modules"]
    if isinstance(targets, str) or any(config.get(key) for key in ("exclude_modules", *_CHOOSES)):
        kept["target_modules"] = sorted(ranks)
        left_out = [key for key in left_out if key != "exclude_modules"]
        rewritten.append(f"target_modules as the names of the {len(ranks)} modules that have weights")
    else:
        names = set(plain_names(config, "target_modules", place))
        stray = next((module for module in sorted(ranks) if names.isdisjoint(endings(module))), None)
        if stray:
            raise RunError(f"{place}: holds weights for {stray}, which are not in its target_modules; {COPY_AGAIN}")
        kept["target_modules"] = sorted(names)
    return Portable(kept, tuple(left_out), tuple(rewritten))


def _patterns(config: dict[str, Any], ranks: Mapping[str, int], place: str) -> dict[str, Any]:
    """Return both patterns by the modules' full names, with the ranks that the weights have."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
        own = {}
        order = {name: at for at, name in enumerate(config.get(key) or {})}
        for module in sorted(ranks):
            # peft takes the first that fits; with ^ a pattern is the whole name.
            means = [name for name in (f"^{module}", *endings(module)) if name in order]
            if means:
                own[module] = config[key][min(means, key=order.__getitem__)]
        if key == "rank_pattern":
            wrong = next((module for module, rank in ranks.items() if rank != own.get(module, config[value])), None)
            if wrong:
                named = own.get(wrong, config[value])
                raise RunError(
                    f"{place}: sets rank {named} for {wrong}, whose weights have {ranks[wrong]}; {COPY_AGAIN}"
                )
        found[key] = own
    return {key: own for key, own in found.items() if key in config}


def _refuse_what_changes_the_result(config: dict[str, Any], place: str) -> None:
    for key in outside_keys(config):
        if config[key] and key in _CHANGES_RESULT:
            raise RunError(f"{place}: {key} is set, and {_CHANGES_RESULT[key]}; use a peft version that supports it")
        if config[key] and key not in _HISTORY | {"use_rslora", "exclude_modules"}:
            raise RunError(f"{place}: {key} is set, which the kit does not support; use the peft that wrote it")


def read_portable(folder: Path) -> Portable:
    """Read an adapter's folder and return its configuration in peft 0.7.0's fields.

    Raises:
        RunError: It cannot be read, or has no equivalent.
    """
    path, weights = adapter_file(folder, ADAPTER_CONFIG), adapter_file(folder, ADAPTER_WEIGHTS)
    try:
        config = read_object(path)
    except OSError as exc:
        raise RunError(f"{path}: cannot be read ({exc.strerror}); name an adapter directory") from exc
    except ValueError as exc:
        raise RunError(f"{path}: {exc}; {COPY_AGAIN}") from exc
    return portable_config(config, read_header(weights), str(path))


def make_portable(folder: Path, copy: Path) -> Portable:
    """Copy an adapter so that every peft since 0.7.0 loads it; the weights are the same file, byte for byte.

    Raises:
        RunError: See ``read_portable``; nothing is written then.
        FileExistsError: ``copy`` is there already.
    """
    portable = read_portable(folder)
    copy.mkdir(parents=True)
    shutil.copyfile(folder / ADAPTER_WEIGHTS, copy / ADAPTER_WEIGHTS)
    (copy / ADAPTER_CONFIG).write_text(json.dumps(portable.config, indent=2) + "\n", encoding="utf-8")
    return portable


@contextlib.contextmanager
def private_copy(folder: Path) -> Iterator[Path]:
    """Lend a copy of an adapter with nothing in it but the weights and a configuration that was written here.

    Raises:
        RunError: See ``read_portable``.
    """
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "adapter"
        make_portable(folder, copy)
        yield copy
