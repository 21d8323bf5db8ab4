"""Every value of a merged model is looked at, at the real depth and width, and what is wrong is seen on both sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the libraries: make setup")

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from deep_base import write_deep_base
from kit.commands.merge import DTYPES
from kit.modeling.adapter_in_use import load_adapter
from kit.use.merged_weights import WeightCheck, adapted_by_peft, check_weights
from kit.use.merging import (
    AdapterWeights,
    BaseWeights,
    LoraPair,
    copy_the_rest,
    find_base,
    read_adapter,
    write_merged,
)

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
QUERY = "model.layers.7.self_attn.q_proj.weight"


@dataclass(frozen=True)
class Case:
    """A base, an adapter as the kit reads it, and a model on which peft has put it."""

    folder: Path
    base: BaseWeights
    adapter: AdapterWeights
    model: Any

    def merged(self, out: Path, adapter: AdapterWeights | None = None, dtype: str = "bfloat16") -> Path:
        out.mkdir()
        copy_the_rest(str(self.folder), None, out, dtype, download=False)
        write_merged(self.base, adapter or self.adapter, out, dtype)
        return out

    def check(self, out: Path, dtype: str = "bfloat16") -> WeightCheck:
        there = find_base(str(out), None, download=False)
        return check_weights(self.base, there, adapted_by_peft(self.model), dtype)


def make_case(folder: Path, adapter: Path, *, size: float, **options: Any) -> Case:
    def loaded() -> Any:
        return AutoModelForCausalLM.from_pretrained(str(folder), torch_dtype=torch.bfloat16)

    torch.manual_seed(0)
    config = {"r": 4, "lora_alpha": 8, "target_modules": LINEAR, "task_type": "CAUSAL_LM", **options}
    model = get_peft_model(loaded(), LoraConfig(**config))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=size)
    model.save_pretrained(str(adapter))
    base = find_base(str(folder), None, download=False)
    return Case(folder, base, read_adapter(adapter, base), load_adapter(loaded(), adapter))


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("deep")
    return make_case(write_deep_base(folder / "base", hidden=32), folder / "adapter", size=0.01)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_of_224_matrices_is_right_in_every_type(deep: Case, tmp_path: Path, dtype: str) -> None:
    found = deep.check(deep.merged(tmp_path / "out", dtype=dtype), dtype)
    assert found.wrong == ()
    assert (found.matrices, found.others) == (224, 67)
    assert found.kept == pytest.approx(1, abs=0.02 if dtype == "bfloat16" else 1e-3)


def test_matrices_of_the_real_width_are_right(tmp_path: Path) -> None:
    wide = make_case(write_deep_base(tmp_path / "base", layers=1, hidden=2048), tmp_path / "adapter", size=1e-3, r=16)
    found = wide.check(wide.merged(tmp_path / "out"))
    assert (found.wrong, found.matrices) == ((), 7)


def _scaled(factor: float) -> Callable[[AdapterWeights], AdapterWeights]:
    def change(adapter: AdapterWeights) -> AdapterWeights:
        pairs = {name: replace(pair, scaling=pair.scaling * factor) for name, pair in adapter.pairs.items()}
        return replace(adapter, pairs=pairs)

    return change


def _transposed(adapter: AdapterWeights) -> AdapterWeights:
    pair = adapter.pairs[QUERY]
    return replace(adapter, pairs={**adapter.pairs, QUERY: replace(pair, is_transposed=True)})


def _without_one(adapter: AdapterWeights) -> AdapterWeights:
    return replace(adapter, pairs={name: pair for name, pair in adapter.pairs.items() if name != QUERY})


def _another(adapter: AdapterWeights) -> AdapterWeights:
    pairs = {
        name: LoraPair(pair.a, torch.randn_like(pair.b) * 0.01, 2.0, False) for name, pair in adapter.pairs.items()
    }
    return replace(adapter, pairs=pairs)


def _of_the_next_layer(adapter: AdapterWeights) -> AdapterWeights:
    layers = {f"layers.{number}.": f"layers.{(number + 1) % 32}." for number in range(32)}

    def moved(name: str) -> str:
        before = next(layer for layer in layers if layer in name)
        return name.replace(before, layers[before])

    return replace(adapter, pairs={name: adapter.pairs[moved(name)] for name in adapter.pairs})


@pytest.mark.parametrize(
    ("change", "matrices", "share"),
    [
        (_scaled(0.0), 224, 0.0),
        (_scaled(0.5), 224, 0.5),
        (_scaled(0.98), 224, 0.98),
        (_scaled(1.02), 224, 1.02),
        (_scaled(2.0), 224, 2.0),
        (_scaled(-1.0), 224, -1.0),
        (_another, 224, 0.0),
        (_of_the_next_layer, 224, 0.0),
        (_without_one, 1, 0.0),
        (_transposed, 1, 0.0),
    ],
)
def test_another_change_than_the_adapters_is_seen(
    deep: Case,
    tmp_path: Path,
    change: Callable[[AdapterWeights], AdapterWeights],
    matrices: int,
    share: float,
) -> None:
    found = deep.check(deep.merged(tmp_path / "out", change(deep.adapter)))
    assert len(found.wrong) == matrices
    line = next(line for line in found.wrong if line.startswith(QUERY))
    assert "values differ from base + adapter" in line
    assert float(line.rpartition("; ")[2].split()[0]) == pytest.approx(share, abs=0.2 if share == 0.0 else 0.03)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_sums_in_another_order_are_right(
    deep: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    from peft.tuners.lora import Linear

    delta_of = Linear.get_delta_weight
    out = deep.merged(tmp_path / "out", dtype=dtype)
    monkeypatch.setattr(Linear, "get_delta_weight", lambda layer, name: delta_of(layer, name) * (1 + 2.0**-22))
    assert deep.check(out, dtype).wrong == ()
    monkeypatch.setattr(Linear, "get_delta_weight", lambda layer, name: delta_of(layer, name) * (1 + 2.0**-8))
    assert len(deep.check(out, dtype).wrong) == 224


def _changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], None], name: str) -> None:
    path = next(path for path in folder.glob("*.safetensors") if name in load_file(path))
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def _one_step(tensor: torch.Tensor) -> None:
    tensor.view(torch.int16).view(-1)[3] += 1


NORM = "model.layers.3.input_layernorm.weight"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (NORM, lambda tensors: _one_step(tensors[NORM]), f"{NORM} differs from the base's"),
        (QUERY, lambda tensors: _one_step(tensors[QUERY]), f"{QUERY}: 1 of 1,024 values differ"),
        (QUERY, lambda tensors: tensors[QUERY].fill_(float("nan")), f"{QUERY}: 1,024 of 1,024 values differ"),
        (NORM, lambda tensors: tensors.pop(NORM), f"{NORM} is missing"),
        (NORM, lambda tensors: tensors.update(more=torch.ones(2)), "more is not in the base"),
        (NORM, lambda tensors: tensors.update({NORM: torch.ones(2)}), f"{NORM} has shape (2,) instead of (32,)"),
    ],
)
def test_a_single_value_is_seen(
    deep: Case, tmp_path: Path, name: str, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    out = deep.merged(tmp_path / "out")
    _changed(out, change, name)
    found = deep.check(out)
    assert len(found.wrong) == 1
    assert found.wrong[0].startswith(message)


def test_an_adapter_too_small_for_the_type_is_lost_in_it_and_that_is_right(tmp_path: Path) -> None:
    small = make_case(write_deep_base(tmp_path / "base", layers=2, hidden=32), tmp_path / "adapter", size=1e-7)
    found = small.check(small.merged(tmp_path / "out"))
    assert (found.wrong, found.matrices) == ((), 14)
    assert found.kept < 0.1
    found = small.check(small.merged(tmp_path / "whole", dtype="float32"), "float32")
    assert found.wrong == ()
    assert found.kept == pytest.approx(1, abs=0.1)


def test_modules_that_were_trained_whole_are_pefts_own(tmp_path: Path) -> None:
    base = write_deep_base(tmp_path / "base", layers=2, hidden=32)
    case = make_case(base, tmp_path / "adapter", size=0.01, target_modules=["q_proj"], modules_to_save=["lm_head"])
    out = case.merged(tmp_path / "out")
    assert case.check(out).wrong == ()
    _changed(out, lambda tensors: _one_step(tensors["lm_head.weight"]), "lm_head.weight")
    assert case.check(out).wrong == ("lm_head.weight differs from the base's",)
