"""Merged weights are the base's plus the adapter's, rounded once; everything else is the base's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the libraries: make setup")

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from kit.run_directory.history import RunError
from kit.use.merging import copy_the_rest, find_base, read_adapter, room_needed, write_merged

QUERY = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def sharded(tiny_base: Path, tmp_path: Path) -> Path:
    """The base in two files with an index, as a 7B model comes."""
    folder = tmp_path / "sharded"
    shutil.copytree(tiny_base, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"model-1-of-2.safetensors": names[:9], "model-2-of-2.safetensors": names[9:]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def merge(base_folder: Path, adapter_folder: Path, out: Path, dtype: str) -> dict[str, Any]:
    base = find_base(str(base_folder), None, download=False)
    out.mkdir()
    copy_the_rest(str(base_folder), None, out, dtype, download=False)
    write_merged(base, read_adapter(adapter_folder, base), out, dtype)
    return {name: tensor for file in sorted(out.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def test_the_merged_weights_are_pefts_own(tiny_base: Path, adapter_run: Path, tmp_path: Path) -> None:
    mine = merge(tiny_base, adapter_run / "adapter", tmp_path / "out", "float32")
    base = AutoModelForCausalLM.from_pretrained(str(tiny_base))
    theirs = PeftModel.from_pretrained(base, str(adapter_run / "adapter")).merge_and_unload().state_dict()
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.allclose(mine[name], tensor, atol=1e-6), name


def test_each_value_is_rounded_once(tiny_base: Path, adapter_run: Path, tmp_path: Path) -> None:
    exact = merge(tiny_base, adapter_run / "adapter", tmp_path / "exact", "float32")
    rounded = merge(tiny_base, adapter_run / "adapter", tmp_path / "rounded", "bfloat16")
    for name, tensor in exact.items():
        assert torch.equal(rounded[name], tensor.to(torch.bfloat16)), name


def test_the_shards_keep_their_names_and_the_index_their_size(sharded: Path, adapter_run: Path, tmp_path: Path) -> None:
    whole = merge(sharded, adapter_run / "adapter", tmp_path / "out", "bfloat16")
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text(encoding="utf-8"))
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    for name, file in index["weight_map"].items():
        assert name in load_file(tmp_path / "out" / file)
    loaded = AutoModelForCausalLM.from_pretrained(str(tmp_path / "out"))
    assert torch.equal(loaded.state_dict()[QUERY].to(torch.bfloat16), whole[QUERY])


def test_ranks_and_alphas_of_single_modules_are_followed(tiny_base: Path, tmp_path: Path) -> None:
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM",
        rank_pattern={"q_proj": 2}, alpha_pattern={"layers.1.self_attn.v_proj": 32},
    )  # fmt: skip
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(str(tiny_base)), config)
    model.save_pretrained(str(tmp_path / "adapter"))
    mine = merge(tiny_base, tmp_path / "adapter", tmp_path / "out", "float32")
    for name, tensor in model.merge_and_unload().state_dict().items():
        assert torch.allclose(mine[name], tensor, atol=1e-6), name


def test_a_module_that_was_trained_whole_takes_the_bases_place(tiny_base: Path, tmp_path: Path) -> None:
    config = LoraConfig(
        r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(str(tiny_base)), config)
    with torch.no_grad():
        model.base_model.model.lm_head.modules_to_save["default"].weight.add_(1)
    model.save_pretrained(str(tmp_path / "adapter"))
    mine = merge(tiny_base, tmp_path / "adapter", tmp_path / "out", "float32")
    before = load_file(tiny_base / "model.safetensors")["lm_head.weight"]
    assert torch.equal(mine["lm_head.weight"], before + 1)


def test_an_adapter_for_another_base_is_refused(tiny_base: Path, adapter_run: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter_run / "adapter", tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_model.safetensors"
    weights = load_file(path)
    wider = {name: tensor.repeat(1, 2) if "q_proj.lora_A" in name else tensor for name, tensor in weights.items()}
    save_file(wider, path)
    base = find_base(str(tiny_base), None, download=False)
    with pytest.raises(RunError, match=r"q_proj.weight of \(128, 256\), which is \(128, 128\) here"):
        read_adapter(tmp_path / "adapter", base)


def test_half_an_adapter_is_refused(tiny_base: Path, adapter_run: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter_run / "adapter", tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if "q_proj.lora_B" not in name}, path)
    with pytest.raises(RunError, match="has only one of lora_A and lora_B"):
        read_adapter(tmp_path / "adapter", find_base(str(tiny_base), None, download=False))


def test_values_beyond_the_types_range_are_refused(tiny_base: Path, adapter_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    shutil.copytree(tiny_base, folder)
    weights = load_file(folder / "model.safetensors")
    weights[QUERY][0, 0] = 1e6
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunError, match=r"beyond torch\.float16's range; use --dtype bfloat16"):
        merge(folder, adapter_run / "adapter", tmp_path / "out", "float16")


def test_weights_that_are_cut_off_are_an_error_with_their_path(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(tiny_base, folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=r"model\.safetensors: is not a complete safetensors file"):
        find_base(str(folder), None, download=False)


def test_a_base_without_safetensors_is_named(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match=r"the folder has no model\.safetensors"):
        find_base(str(tmp_path), None, download=False)


def test_tokenizer_and_configuration_are_the_bases_own(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    given["dtype"] = given.pop("torch_dtype")  # as transformers 5 writes it
    (folder / "config.json").write_text(json.dumps(given), encoding="utf-8")
    out = tmp_path / "out"
    out.mkdir()
    copy_the_rest(str(folder), None, out, "bfloat16", download=False)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()
    found = json.loads((out / "config.json").read_text(encoding="utf-8"))
    del given["dtype"]
    assert found == {**given, "torch_dtype": "bfloat16"}


def test_the_room_asked_for_is_what_the_weights_take(tiny_base: Path, adapter_run: Path, tmp_path: Path) -> None:
    base = find_base(str(tiny_base), None, download=False)
    merged = merge(tiny_base, adapter_run / "adapter", tmp_path / "out", "bfloat16")
    written = sum(tensor.nbytes for tensor in merged.values())
    assert base.bytes_as("bfloat16") == written
    on_disk = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert written < on_disk < room_needed(base, "bfloat16")


def test_anyone_may_read_the_weights_who_may_read_the_configuration(
    tiny_base: Path, adapter_run: Path, tmp_path: Path
) -> None:
    merge(tiny_base, adapter_run / "adapter", tmp_path / "out", "bfloat16")
    modes = {(tmp_path / "out" / name).stat().st_mode for name in ("model.safetensors", "config.json")}
    assert len(modes) == 1
