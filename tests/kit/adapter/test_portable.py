"""Adapters from elsewhere load everywhere, or are refused with the reason; never something in between."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter_files import PLAIN, QUERY, safetensors, shapes_of, write_adapter
from kit.adapter import portable
from kit.adapter.portable import make_portable, outside_keys, portable_config, private_copy, read_portable
from kit.adapter.tensor_file import TensorInfo, read_header
from kit.cli.quiet_libraries import quiet_imports
from kit.run_directory.history import RunError

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = {name: TensorInfo("F32", shape) for name, shape in shapes_of(QUERY).items()}


def test_newer_fields_that_are_not_set_are_left_out_without_a_word() -> None:
    found = portable_config({**PLAIN, "use_dora": False, "eva_config": None, "a_field_of_tomorrow": None}, WEIGHTS)
    assert outside_keys(found.config) == []
    assert (found.left_out, found.rewritten) == ((), ())


def test_what_says_only_how_it_was_made_is_left_out_by_name() -> None:
    found = portable_config({**PLAIN, "peft_version": "0.21.2", "runtime_config": {"ephemeral": True}}, WEIGHTS)
    assert found.left_out == ("peft_version", "runtime_config")
    assert found.config["target_modules"] == ["q_proj"]


@pytest.mark.parametrize("key", sorted(portable._CHANGES_RESULT))
def test_what_changes_the_result_is_refused_with_the_reason(key: str) -> None:
    with pytest.raises(RunError, match=f"here: {key} is set, and .*; use a peft version that supports it"):
        portable_config({**PLAIN, key: {"a": 1}}, WEIGHTS, "here")


def test_a_set_field_nobody_here_knows_is_refused() -> None:
    with pytest.raises(RunError, match="a_field_of_tomorrow is set, which the kit does not support"):
        portable_config({**PLAIN, "a_field_of_tomorrow": 1}, WEIGHTS)


def test_every_field_of_the_installed_peft_is_judged() -> None:
    pytest.importorskip("peft", reason="needs the libraries: make setup")
    with quiet_imports():
        from peft import LoraConfig

    judged = portable.KNOWN_IN_0_7 | portable._HISTORY | set(portable._CHANGES_RESULT)
    assert {field.name for field in dataclasses.fields(LoraConfig)} - judged == {"use_rslora", "exclude_modules"}


def test_what_the_kit_saves_is_portable() -> None:
    pytest.importorskip("peft", reason="needs the libraries: make setup")
    with quiet_imports():
        from kit.modeling.model import PORTABLE_LORA_KEYS

    assert PORTABLE_LORA_KEYS <= portable.KNOWN_IN_0_7


def test_rank_stabilised_scaling_is_written_as_an_alpha() -> None:
    found = portable_config({**PLAIN, "use_rslora": True}, WEIGHTS)
    assert found.config["lora_alpha"] / found.config["r"] == 8 / 4**0.5
    assert found.left_out == ()
    assert "use_rslora as lora_alpha 8 x sqrt(4)" in found.rewritten[0]
    with pytest.raises(RunError, match="combined with rank_pattern"):
        portable_config({**PLAIN, "use_rslora": True, "rank_pattern": {"q_proj": 8}}, WEIGHTS)


@pytest.mark.parametrize("change", [{"target_modules": "all-linear"}, {"exclude_modules": ["v_proj"]}])
def test_targets_that_are_not_a_list_of_names_become_the_modules_that_have_weights(change: dict[str, Any]) -> None:
    found = portable_config({**PLAIN, **change}, WEIGHTS)
    assert found.config["target_modules"] == [QUERY]
    assert "names of the 1 modules" in found.rewritten[0]


def test_a_beginning_that_leaves_the_base_alone_is_forgotten_and_one_that_does_not_is_refused() -> None:
    found = portable_config({**PLAIN, "init_lora_weights": "gaussian"}, WEIGHTS)
    assert found.config["init_lora_weights"] is True
    assert found.left_out == ("init_lora_weights",)
    with pytest.raises(RunError, match="initialised by 'pissa', which changes the base's own weights"):
        portable_config({**PLAIN, "init_lora_weights": "pissa"}, WEIGHTS)


def test_other_kinds_of_adapter_are_refused() -> None:
    with pytest.raises(RunError, match="peft_type is 'IA3'"):
        portable_config({**PLAIN, "peft_type": "IA3"}, WEIGHTS)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(st.text(max_size=5), LEAVES, max_size=3)


@given(st.dictionaries(st.sampled_from(sorted({*PLAIN, "use_rslora", "rank_pattern", "exclude_modules"})), JSON))
def test_a_wild_configuration_is_taken_or_refused_and_never_a_crash(changes: dict[str, Any]) -> None:
    try:
        found = portable_config({**PLAIN, **changes}, WEIGHTS)
    except RunError as exc:
        assert "; " in str(exc)  # noqa: PT017 - either end is good
    else:
        json.dumps(found.config)


def test_the_weights_are_copied_byte_for_byte(adapter_run: Path, tmp_path: Path) -> None:
    make_portable(adapter_run / "adapter", tmp_path / "copy")
    name = "adapter_model.safetensors"
    assert (tmp_path / "copy" / name).read_bytes() == (adapter_run / "adapter" / name).read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a complete safetensors file"),
        (b"\x80\x02pickled", "is not a complete safetensors file"),
        (None, "cannot be read"),
    ],
)
def test_weights_that_are_not_safetensors_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "adapter_model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=message):
        read_header(path)


def test_an_adapter_of_a_newer_peft_answers_the_same_after_it_was_made_portable(
    tiny_base: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft", minversion="0.8", reason="needs a peft with rank-stabilised LoRA")
    with quiet_imports():
        import torch
        from peft import LoraConfig, PeftModel, get_peft_model
        from transformers import AutoModelForCausalLM

    def base() -> Any:
        return AutoModelForCausalLM.from_pretrained(str(tiny_base))

    config = LoraConfig(
        r=4, lora_alpha=8, use_rslora=True, init_lora_weights=False, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    get_peft_model(base(), config).save_pretrained(str(tmp_path / "newer"))
    assert outside_keys(json.loads((tmp_path / "newer/adapter_config.json").read_text(encoding="utf-8")))
    found = make_portable(tmp_path / "newer", tmp_path / "portable")
    assert outside_keys(found.config) == []
    ids = torch.arange(3, 40)[None]
    newer, older, plain = (
        model(input_ids=ids).logits
        for model in (
            PeftModel.from_pretrained(base(), str(tmp_path / "newer")).eval(),
            PeftModel.from_pretrained(base(), str(tmp_path / "portable")).eval(),
            base().eval(),
        )
    )
    assert torch.allclose(newer, older, atol=1e-5)
    assert not torch.allclose(newer, plain, atol=1e-2)


def test_an_adapter_with_learnt_magnitudes_is_refused_by_its_weights_too(tiny_base: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", minversion="0.9", reason="needs a peft with DoRA")
    with quiet_imports():
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

    config = LoraConfig(r=2, use_dora=True, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(str(tiny_base)), config).save_pretrained(str(tmp_path))
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "use_dora": False}), encoding="utf-8")
    with pytest.raises(RunError, match=r"lora_magnitude_vector.*, which is not part of plain LoRA"):
        read_portable(tmp_path)


def test_what_reaches_peft_is_a_copy_with_two_files_and_the_list_of_fields(tmp_path: Path) -> None:
    folder = write_adapter(
        tmp_path / "adapter", base_model_name_or_path="elsewhere", peft_version="0.21.2", megatron_core="this",
        megatron_config={"a": 1}, auto_mapping={"parent_library": "this", "base_model_class": "s"},
        loftq_config={"loftq_bits": 4}, runtime_config={"a": 1},
    )  # fmt: skip
    (folder / "adapter_model.bin").write_bytes(b"\x80\x02pickled")
    with private_copy(folder) as copy:
        assert {path.name for path in copy.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
        config = json.loads((copy / "adapter_config.json").read_text(encoding="utf-8"))
    assert set(config) == {*PLAIN, "base_model_name_or_path"}
    assert not copy.exists()


def test_peft_0_7s_own_default_is_left_out_without_a_word() -> None:
    assert portable_config({**PLAIN, "megatron_core": "megatron.core"}, WEIGHTS).left_out == ()
    assert portable_config({**PLAIN, "megatron_core": "this"}, WEIGHTS).left_out == ("megatron_core",)


@pytest.mark.parametrize("kind", ["MULTITASK_PROMPT_TUNING", "XLORA", "LOHA", "lora", None, ["LORA"]])
def test_only_lora_is_loaded(kind: Any) -> None:
    with pytest.raises(RunError, match="only LORA is supported"):
        portable_config({**PLAIN, "peft_type": kind}, WEIGHTS)


SLOW = "(.*a){25}x|((a+)+)+$"  # minutes for a regular expression


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": True}, "r is True"),
        ({"r": 0}, "r is 0"),
        ({"r": 10**9}, "r is 1000000000"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"lora_alpha": 10**400}, "lora_alpha is 1000"),
        ({"lora_dropout": -1}, "lora_dropout is -1"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'"),
        ({"task_type": ["CAUSAL_LM"]}, "task_type is"),
        ({"fan_in_fan_out": "yes"}, "fan_in_fan_out is 'yes'"),
        ({"base_model_name_or_path": ["x"]}, "base_model_name_or_path is"),
        ({"target_modules": None}, "target_modules is None"),
        ({"target_modules": [SLOW]}, "target_modules is .* not a list of plain names"),
        ({"target_modules": ["q_proj", 3]}, "target_modules is .* not a list of plain names"),
        ({"target_modules": ["v_proj"]}, "holds weights for .*q_proj, which are not in its target_modules"),
        ({"modules_to_save": [SLOW]}, "modules_to_save is .* not a list of plain names"),
        ({"modules_to_save": "lm_head"}, "modules_to_save is .* not a list of plain names"),
        ({"rank_pattern": {SLOW: 4}}, "rank_pattern is"),
        ({"alpha_pattern": {SLOW: 4}}, "alpha_pattern is"),
        ({"alpha_pattern": {"q_proj": "4"}}, "alpha_pattern is"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern is"),
        ({"rank_pattern": {"q_proj": 8}}, "sets rank 8 for .*q_proj, whose weights have 4"),
        ({"layer_replication": [[0, 2]] * 10**6}, "layer_replication is set"),
    ],
)
def test_a_value_plain_lora_does_not_have_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=f"here: {message}.*; "):
        portable_config({**PLAIN, **change}, WEIGHTS, "here")


@pytest.mark.parametrize(
    "change",
    [{"target_modules": SLOW}, {"exclude_modules": SLOW}, {"layers_to_transform": [0], "layers_pattern": SLOW}],
)
def test_patterns_are_never_matched_and_become_the_names_that_have_weights(change: dict[str, Any]) -> None:
    found = portable_config({**PLAIN, **change}, WEIGHTS)
    assert found.config["target_modules"] == [QUERY]
    assert "exclude_modules" not in found.config
    assert not {"layers_to_transform", "layers_pattern"} & set(found.config)


def test_patterns_of_ranks_and_alphas_become_full_names_that_every_peft_reads_alike() -> None:
    shapes = shapes_of("a.layers.0.q_proj", "a.layers.1.q_proj") | shapes_of("a.layers.0.v_proj", rank=2)
    weights = {name: TensorInfo("F32", shape) for name, shape in shapes.items()}
    patterns = {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"^a.layers.1.q_proj": 7, "q_proj": 5, "j": 9}}
    found = portable_config({**PLAIN, "target_modules": ["q_proj", "v_proj"], **patterns}, weights)
    assert found.config["rank_pattern"] == {"a.layers.0.v_proj": 2}
    assert found.config["alpha_pattern"] == {"a.layers.0.q_proj": 5, "a.layers.1.q_proj": 7}


HEAD = "base_model.model.lm_head"


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({f"{HEAD}.lora_A.weight": (4, 8)}, "has only one of lora_A and lora_B"),
        ({f"{HEAD}.lora_A.weight": (4, 8), f"{HEAD}.lora_B.weight": (8, 5)}, "do not match"),
        ({f"{HEAD}.lora_A.weight": (4, 8, 1), f"{HEAD}.lora_B.weight": (8, 4)}, "not part of plain LoRA"),
        ({"lm_head.lora_A.weight": (4, 8), "lm_head.lora_B.weight": (8, 4)}, "not part of plain LoRA"),
        ({**shapes_of(QUERY), f"{HEAD}.weight": (8, 8)}, "which is not in its configuration"),
        (
            {**shapes_of(QUERY), f"base_model.model.{QUERY}.base_layer.weight": (128, 128)},
            "which is not in its configuration",
        ),
        ({}, "holds no weights"),
    ],
)
def test_weights_that_are_no_adapters_are_refused(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(RunError, match=message):
        portable_config(PLAIN, {name: TensorInfo("F32", shape) for name, shape in shapes.items()})


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_link_out_of_the_adapters_folder_is_not_followed(tmp_path: Path, name: str) -> None:
    folder, elsewhere = write_adapter(tmp_path / "adapter"), tmp_path / "elsewhere"
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(
        RunError, match=rf"{name}: is a symlink out of its directory, to {elsewhere}; replace it with the file"
    ):
        read_portable(folder)


def test_the_hubs_cache_keeps_its_files_beside_the_snapshot_and_is_read(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "models--a--b/snapshots/0123")
    (tmp_path / "models--a--b/blobs").mkdir()
    for path in list(folder.iterdir()):
        path.rename(tmp_path / "models--a--b/blobs" / path.name)
        path.symlink_to(f"../../blobs/{path.name}")
    assert read_portable(folder).config["target_modules"] == ["q_proj"]


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter")
    (folder / "adapter_config.json").unlink()
    os.mkfifo(folder / "adapter_config.json")
    with pytest.raises(RunError, match=r"adapter_config\.json: is not a regular file"):
        read_portable(folder)


def test_a_configuration_of_megabytes_is_not_read(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter", target_modules=["q_proj"] * 10**6)
    with pytest.raises(RunError, match=r"and a configuration has a few thousand"):
        read_portable(folder)


def _header(**entry: Any) -> bytes:
    text = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **entry}}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_header(dtype="I64", shape=[1]), "a has dtype I64"),
        (_header(dtype="PICKLE"), "is not a complete safetensors file"),
        (_header() + b"more", "is not a complete safetensors file"),
        ((17).to_bytes(8, "little") + b'{"a": 1, "a": 2 }', "is not a complete safetensors file"),
    ],
)
def test_a_header_that_is_not_whole_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=message):
        read_header(tmp_path / "adapter_model.safetensors")


def test_half_floats_are_weights_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(safetensors({"x": (3,)}, dtype="BF16", item_bytes=2))
    assert read_header(tmp_path / "a") == {"x": TensorInfo("BF16", (3,))}


def test_names_are_looked_up_and_not_tried_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = portable.endings
    monkeypatch.setattr(portable, "endings", lambda module: asked.append(module) or real(module))
    many = {f"name_{number}": 8 for number in range(5_000)}
    config = {**PLAIN, "alpha_pattern": {**many, "q_proj": 3, f"^{QUERY}": 4}, "target_modules": [*many, "q_proj"]}
    found = portable_config(config, WEIGHTS)
    assert found.config["alpha_pattern"] == {QUERY: 3}
    assert len(asked) == 3  # of its ranks, its alphas, its targets
