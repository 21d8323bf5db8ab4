"""A base is known whole before it is loaded: each way not to be whole is an error that names what is wrong."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from kit.model.base import find_base
from kit.model.files import ModelFileError
from kit.model.usability import base_findings, require_whole
from kit.stacks.registry import GENERATIONS
from small_base import change_json, change_weights, read_weights, tensor, write_base, write_safetensors, write_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kit.cli.findings import Finding

QUERY = "model__layers__0__self_attn__q_proj__weight"


def judged(folder: Path, stack: str = "current") -> list[Finding]:
    return base_findings(find_base(str(folder), None, download=False), GENERATIONS[stack].traits.reader)


def errors(folder: Path, stack: str = "current") -> list[Finding]:
    return [finding for finding in judged(folder, stack) if finding.severity == "error"]


@pytest.mark.parametrize("kind", ["mistral", "llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("tied", [False, True])
def test_a_whole_base_of_each_family_passes(tmp_path: Path, kind: str, shards: int, tied: bool) -> None:
    found = judged(write_base(tmp_path, kind, shards=shards, tie_word_embeddings=tied))
    assert [finding.severity for finding in found] == ["ok"]
    assert "tensors in" in found[0].message


def _without_head(base: Path) -> None:
    change_weights(base, lm_head__weight=None)


def _without_a_matrix(base: Path) -> None:
    change_weights(base, **{QUERY: None})


def _without_a_layer(base: Path) -> None:
    tensors = read_weights(base / "model.safetensors")
    write_weights(base, {name: value for name, value in tensors.items() if ".layers.1." not in name})


def _with_a_stranger(base: Path) -> None:
    change_weights(base, model__layers__2__mlp__up_proj__weight=tensor((48, 32)))


def _transposed(base: Path) -> None:
    change_weights(base, model__layers__1__mlp__up_proj__weight=tensor((32, 48)))


def _renamed(base: Path) -> None:
    tensors = read_weights(base / "model.safetensors")
    write_weights(base, {name.removeprefix("model."): value for name, value in tensors.items()})


def _eight_bits(base: Path) -> None:
    change_weights(base, **{QUERY: tensor((32, 32), "I8")})


def _wrong_sizes(base: Path) -> None:
    change_json(base / "config.json", vocab_size=301)


def _more_layers(base: Path) -> None:
    change_json(base / "config.json", num_hidden_layers=3)


def _tied_and_another_head(base: Path) -> None:
    change_json(base / "config.json", tie_word_embeddings=True)
    change_weights(base, lm_head__weight=tensor((300, 32), byte=b"\1"))


def _cut_short(base: Path) -> None:
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_without_head, "lacks lm_head.weight, which would be initialised at random"),
        (_without_a_matrix, "lacks model.layers.0.self_attn.q_proj.weight"),
        (_without_a_layer, "lacks 9 tensors"),
        (_with_a_stranger, "contains model.layers.2.mlp.up_proj.weight, which its config.json does not describe"),
        (_transposed, "has the shape (32, 48), but config.json says (48, 32)"),
        (_renamed, "lacks 20 tensors"),
        (_eight_bits, "of dtype I8"),
        (_wrong_sizes, "has the shape (300, 32), but config.json says (301, 32)"),
        (_more_layers, "lacks 9 tensors"),
        (_tied_and_another_head, "contains lm_head.weight, which its config.json"),
        (_cut_short, "is not a complete safetensors file"),
    ],
)
def test_weights_that_are_not_whole_are_refused(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    base = write_base(tmp_path)
    damage(base)
    found = errors(base)
    assert words in found[0].message
    assert found[0].fix
    with pytest.raises(ModelFileError):
        require_whole(str(base), None, GENERATIONS["current"].traits.reader, download=False)


def test_a_head_that_is_tied_and_written_all_the_same_passes_where_it_is_the_embedding(tmp_path: Path) -> None:
    base = write_base(tmp_path)
    change_json(base / "config.json", tie_word_embeddings=True)
    assert errors(base) == []


def test_frequencies_that_older_checkpoints_carry_are_passed_over(tmp_path: Path) -> None:
    base = write_base(tmp_path, "llama")
    change_weights(base, model__layers__0__self_attn__rotary_emb__inv_freq=tensor((4,), "F32"))
    assert errors(base) == []


def test_several_types_are_said(tmp_path: Path) -> None:
    base = write_base(tmp_path)
    change_weights(base, model__norm__weight=tensor((32,), "F32"))
    assert [finding.id for finding in judged(base) if finding.severity == "warning"] == ["model.dtype"]


# --- Shards and their index ----------------------------------------------------------------------------------------


def _index(base: Path, **changes: str) -> None:
    path = base / "model.safetensors.index.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["weight_map"] |= {name.replace("__", "."): file for name, file in changes.items()}
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    ["model-00001.bin", "../model.safetensors", "/etc/model.safetensors", "a/b.safetensors", ".safetensors",
     "..safetensors", "model.safetensors\n", "", "a\\b.safetensors"],
)  # fmt: skip
def test_an_index_that_names_anything_but_safetensors_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    base = write_base(tmp_path, shards=2)
    _index(base, lm_head__weight=name)
    with pytest.raises(ModelFileError, match=r"only safetensors files in its own folder are read; use a model"):
        find_base(str(base), None, download=False)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', '{"weight_map": {}}', "["])
def test_a_broken_index_is_refused(tmp_path: Path, content: str) -> None:
    base = write_base(tmp_path, shards=2)
    (base / "model.safetensors.index.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelFileError, match="download the model again"):
        find_base(str(base), None, download=False)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    base = write_base(tmp_path, shards=3)
    (base / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"has no model-00002-of-00003\.safetensors"):
        find_base(str(base), None, download=False)


def test_an_index_that_says_another_file_than_the_tensors_is_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path, shards=2)
    wrong = {"model-00001-of-00002.safetensors": "model-00002-of-00002.safetensors"}
    said = json.loads((base / "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
    _index(base, lm_head__weight=wrong.get(said["lm_head.weight"], "model-00001-of-00002.safetensors"))
    assert "says lm_head.weight is in" in errors(base)[0].message


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path, shards=2)
    first, second = sorted(base.glob("model-*.safetensors"))
    content = read_weights(first)
    name = next(iter(content))
    write_safetensors(second, {**read_weights(second), name: content[name]})
    assert f"{name} in two of its files" in errors(base)[0].message


def test_an_index_beside_a_whole_file_is_refused(tmp_path: Path) -> None:
    """transformers would load one of the two, and nobody says which."""
    base = write_base(write_base(tmp_path, shards=2))
    with pytest.raises(ModelFileError, match=r"contains model\.safetensors and model\.safetensors\.index\.json"):
        find_base(str(base), None, download=False)


# --- What lies beside the weights ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.bin", "adapter_model.safetensors"])
def test_an_adapter_in_a_bases_folder_is_refused_by_name(tmp_path: Path, name: str) -> None:
    base = write_base(tmp_path)
    (base / name).write_text("{}", encoding="utf-8")
    (found,) = errors(base)
    assert (found.id, found.where) == ("model.adapter_inside", str(base / name))
    assert "merge the adapter first" in found.fix


def test_pickles_beside_the_weights_are_named_and_not_read(tmp_path: Path) -> None:
    """The hub's own repository of Mistral-7B-Instruct-v0.2 holds them beside the safetensors."""
    base = write_base(tmp_path)
    for name in ("pytorch_model-00001-of-00002.bin", "training_args.bin", "model.pt"):
        (base / name).write_bytes(b"\x80")
    found = {finding.id: finding for finding in judged(base)}
    assert found["model.not_read"].severity == "ok"
    assert "training_args.bin" in found["model.not_read"].message
    assert not {"model.pt", "training_args.bin"} & set(find_base(str(base), None, download=False).files)


@pytest.mark.parametrize(
    ("file", "changes", "identity"),
    [
        ("config.json", {"auto_map": {"AutoConfig": "own.Config"}}, "model.remote_code"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["own.T", None]}}, "model.remote_code"),
        ("config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}, "model.quantised"),
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "model.quantised"),
        ("config.json", {"model_type": "phi3"}, "model.family"),
        ("config.json", {"model_type": "gemma2"}, "model.family"),
        ("config.json", {"num_experts": 8}, "model.family"),
        ("config.json", {"hidden_size": "32"}, "model.family"),
        ("config.json", {"rms_norm_eps": "small"}, "model.family"),
        ("config.json", {"rope_theta": True}, "model.family"),
        ("config.json", {"sliding_window": 1.5}, "model.family"),
        ("config.json", {"hidden_act": 3}, "model.family"),
        ("config.json", {"hidden_act": "gelu"}, "model.family"),
        ("config.json", {"num_hidden_layers": 10**9}, "model.family"),
        ("config.json", {"max_position_embeddings": 10**18}, "model.family"),
        ("config.json", {"layer_types": ["full_attention"]}, "model.family"),
        ("config.json", {"num_key_value_heads": 3}, "model.family"),
    ],
)
def test_what_a_base_says_of_itself_is_held_against_what_can_be_trained(
    tmp_path: Path, file: str, changes: dict[str, Any], identity: str
) -> None:
    base = write_base(tmp_path)
    change_json(base / file, **changes)
    assert identity in [finding.id for finding in errors(base)]


def test_a_base_is_judged_for_the_stack_that_is_to_load_it(tmp_path: Path) -> None:
    assert errors(write_base(tmp_path / "a", "qwen2"), "reference")[0].fix == "STACK=current"
    scaled = write_base(tmp_path / "b", rope_scaling={"rope_type": "yarn", "factor": 4.0})
    assert "would silently ignore: it would be another model" in errors(scaled, "reference")[0].message
    assert errors(scaled, "current") == []
    silent = write_base(tmp_path / "c")
    write_safetensors(silent / "model.safetensors", read_weights(silent / "model.safetensors"), metadata={})
    assert "transformers 4.36 does not read it" in errors(silent, "reference")[0].message
    assert errors(silent, "current") == []


# --- Links ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["special_tokens_map.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.model"]
)
def test_a_small_file_that_is_a_link_to_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    base, secret = write_base(tmp_path / "base"), tmp_path / "kaggle.json"
    secret.write_text('{"key": "secret"}', encoding="utf-8")
    (base / name).symlink_to(secret)
    (found,) = errors(base)
    assert found.id == "model.link"
    assert "would be published with the adapter" in found.message


def test_a_folder_that_is_only_called_a_snapshot_leads_nowhere(tmp_path: Path) -> None:
    base, secret = write_base(tmp_path / "snapshots" / "own"), tmp_path / "kaggle.json"
    secret.write_text("{}", encoding="utf-8")
    (base / "special_tokens_map.json").symlink_to(secret)
    assert [finding.id for finding in errors(base)] == ["model.link"]


def test_links_within_a_folder_and_within_the_hubs_cache_are_fine(tmp_path: Path) -> None:
    snapshot = write_base(tmp_path / "models--a--b" / "snapshots" / "0123")
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir()
    for path in sorted(snapshot.iterdir()):
        path.replace(blobs / f"{path.name}-blob")
        path.symlink_to(os.path.relpath(blobs / f"{path.name}-blob", snapshot))
    assert errors(snapshot) == []
    # As older versions of `hf download --local-dir` leave a folder, and as people link a snapshot to a shorter name.
    (tmp_path / "local").mkdir()
    for path in snapshot.iterdir():
        (tmp_path / "local" / path.name).symlink_to(path.resolve())
    (tmp_path / "short").symlink_to(snapshot)
    assert errors(tmp_path / "local") == []
    assert errors(tmp_path / "short") == []
