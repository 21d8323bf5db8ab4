"""What is loaded is what the file holds, and what is saved is what was trained; otherwise it is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="needs the libraries: make setup")

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from kit.cli.failures import explain
from kit.cli.interpreter import PROJECT_ROOT
from kit.modeling import adapter_in_use
from kit.modeling.adapter_in_use import SavedAdapterError, check_loads_back, load_adapter
from kit.modeling.model import attach_adapter, load_base_model, save_adapter
from kit.run_directory.history import RunError
from kit.train import saving as session
from kit.train.saving import adapter_sha256, save_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kit.config.settings import Settings

REFERENCE = PROJECT_ROOT / ".venv-reference" / "bin" / "python"
WEIGHTS = "adapter_model.safetensors"
IN_SIXTEEN_BITS = """
import sys
sys.path[:0] = ["scripts", "tests"]
from pathlib import Path
import torch
from adapter_run import run_settings
from kit.modeling.adapter_in_use import check_loads_back, load_adapter
from kit.modeling.model import attach_adapter, load_base_model, save_adapter
from kit.train.saving import adapter_sha256

base, adapter, out = map(Path, sys.argv[1:])
settings = run_settings(base, out, quantization__load_in_4bit=False, model__torch_dtype="bfloat16")
model = load_adapter(load_base_model(settings, "cpu"), adapter)
print({str(weight.dtype) for name, weight in model.named_parameters() if "lora_" in name})
model = attach_adapter(load_base_model(settings, "cpu"), settings)
for weight in model.parameters():
    if weight.requires_grad:
        weight.data = torch.randn(weight.shape)
save_adapter(model, out / "adapter")
before = adapter_sha256(model)
check_loads_back(model, out / "adapter")
print(adapter_sha256(model) == before)
"""


def settings_of(base: Path, folder: Path, **changes: object) -> Settings:
    from adapter_run import run_settings

    return run_settings(base, folder, quantization__load_in_4bit=False, **changes)


def trained(settings: Settings) -> Any:
    model = attach_adapter(load_base_model(settings, "cpu"), settings)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return model


def change_config(folder: Path, **fields: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **fields}), encoding="utf-8")


def change_weights(folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor | None]) -> None:
    changed = {name: change(name, tensor) for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, folder / WEIGHTS)


@pytest.mark.parametrize("quantised", [False, True])
def test_a_saved_adapter_loads_back_and_leaves_no_trace(tiny_base: Path, tmp_path: Path, *, quantised: bool) -> None:
    from adapter_run import run_settings

    model = trained(run_settings(tiny_base, tmp_path, quantization__load_in_4bit=quantised))
    save_adapter(model, tmp_path / "adapter")
    before, hashed = [name for name, _ in model.named_parameters()], adapter_sha256(model)
    check_loads_back(model, tmp_path / "adapter")
    assert [name for name, _ in model.named_parameters()] == before
    assert adapter_sha256(model) == hashed
    assert list(model.peft_config) == ["default"]
    assert model.active_adapter == "default"


def test_an_adapter_in_sixteen_bits_loads_back(tiny_base: Path, tmp_path: Path) -> None:
    model = trained(settings_of(tiny_base, tmp_path, model__torch_dtype="bfloat16"))
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(torch.bfloat16)
    save_adapter(model, tmp_path / "adapter")
    check_loads_back(model, tmp_path / "adapter")


def _first_bit(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if name.endswith("layers.1.self_attn.v_proj.lora_B.weight"):
        tensor.view(torch.int32)[0, 0] ^= 1
    return tensor


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: change_config(folder, target_modules=["q_proj", "v_proj"]), "cannot be loaded .*down_proj"),
        (lambda folder: change_config(folder, lora_alpha=33), "is scaled by 2.0625 instead of 2.0"),
        (lambda folder: change_config(folder, r=8), "cannot be loaded .*sets rank 8"),
        (lambda folder: change_config(folder, layer_replication=[[0, 2]]), "cannot be loaded"),
        (lambda folder: change_weights(folder, _first_bit), "v_proj.lora_B.weight has different values"),
        (
            lambda folder: change_weights(folder, lambda name, tensor: None if "layers.3." in name else tensor),
            r"layers\.3\..*lora_A\.weight has different values",
        ),
        (lambda folder: (folder / WEIGHTS).unlink(), "cannot be loaded"),
    ],
)
def test_a_saved_adapter_that_is_not_the_trained_one_is_noticed(
    tiny_base: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    model = trained(settings_of(tiny_base, tmp_path))
    save_adapter(model, tmp_path / "adapter")
    damage(tmp_path / "adapter")
    with pytest.raises(SavedAdapterError, match=message):
        check_loads_back(model, tmp_path / "adapter")
    assert list(model.peft_config) == ["default"]


def test_parameters_that_are_trained_and_not_in_the_saved_configuration_fail_the_run(
    tiny_base: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft", minversion="0.17", reason="needs a peft with target_parameters")
    settings = settings_of(tiny_base, tmp_path)
    config = LoraConfig(
        r=4, target_modules=["v_proj"], target_parameters=["self_attn.q_proj.weight"], task_type="CAUSAL_LM"
    )
    model = get_peft_model(load_base_model(settings, "cpu"), config)
    with pytest.raises(
        SavedAdapterError, match=r"the saved adapter differs from the trained one: .*; it was not kept"
    ) as info:
        save_run(model, settings, {})
    assert not any((settings.run_directory / name).exists() for name in ("adapter", ".adapter.partial"))
    finding = explain(info.value)
    assert (finding.id, finding.severity) == ("run.adapter_lost", "error")
    assert "the last checkpoint holds the trained weights" in finding.fix


def test_a_run_keeps_no_adapter_that_lost_something(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tiny_base, tmp_path)
    model = trained(settings)

    def forgetful(model: Any, folder: Path) -> list[str]:
        left_out = save_adapter(model, folder)
        change_config(folder, lora_alpha=64)
        return left_out

    monkeypatch.setattr(session, "save_adapter", forgetful)
    with pytest.raises(SavedAdapterError, match="is scaled by 4"):
        save_run(model, settings, {})
    assert not (settings.run_directory / "adapter").exists()


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (("layers.3.", "layers.9."), "are missing, such as .*layers.9"),
        (("layers.", "blocks."), "does not fit this base"),
    ],
)
def test_an_adapter_of_another_base_is_a_sentence(
    tiny_base: Path, adapter_run: Path, tmp_path: Path, rename: tuple[str, str], message: str
) -> None:
    shutil.copytree(adapter_run / "adapter", tmp_path / "adapter")
    weights = load_file(tmp_path / "adapter" / WEIGHTS)
    save_file({name.replace(*rename): tensor for name, tensor in weights.items()}, tmp_path / "adapter" / WEIGHTS)
    with pytest.raises(RunError, match=rf"adapter: {message}|{message}.*; use the base it was trained on"):
        load_adapter(AutoModelForCausalLM.from_pretrained(str(tiny_base)), tmp_path / "adapter")


def test_weights_of_another_width_are_a_sentence(tiny_base: Path, adapter_run: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter_run / "adapter", tmp_path / "adapter")
    change_weights(tmp_path / "adapter", lambda name, it: it.repeat(1, 2) if "q_proj.lora_A" in name else it)
    with pytest.raises(RunError, match=r"does not fit this base .*; use the base it was trained on"):
        load_adapter(AutoModelForCausalLM.from_pretrained(str(tiny_base)), tmp_path / "adapter")


@pytest.mark.parametrize("own", [True, False])
def test_a_heads_base_beside_its_adapter_has_to_be_this_bases_own(
    tiny_base: Path, tmp_path: Path, *, own: bool
) -> None:
    base = AutoModelForCausalLM.from_pretrained(str(tiny_base))
    config = LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(base, config).save_pretrained(str(tmp_path))
    assert "base_model.model.lm_head.base_layer.weight" in load_file(tmp_path / WEIGHTS)
    base = AutoModelForCausalLM.from_pretrained(str(tiny_base))
    if own:
        assert load_adapter(base, tmp_path).lm_head.lora_A["default"].weight.any()
        return
    change_weights(tmp_path, lambda name, tensor: tensor + 1 if "base_layer" in name else tensor)
    with pytest.raises(RunError, match=r"base_layer\.weight, which differs from this base"):
        load_adapter(base, tmp_path)


@pytest.mark.stacks
@pytest.mark.skipif(not REFERENCE.exists(), reason="there is no .venv-reference: make setup STACK=reference")
def test_the_older_peft_keeps_an_adapters_own_type_on_a_base_in_sixteen_bits(
    tiny_base: Path, adapter_run: Path, tmp_path: Path
) -> None:
    arguments = [str(REFERENCE), "-W", "ignore", "-c", IN_SIXTEEN_BITS, str(tiny_base)]
    arguments += [str(adapter_run / "adapter"), str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=300, cwd=PROJECT_ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["{'torch.float32'}", "True"]


def test_nothing_is_left_of_the_copy_that_is_loaded(tiny_base: Path, adapter_run: Path, tmp_path: Path) -> None:
    adapter_in_use.load_adapter(AutoModelForCausalLM.from_pretrained(str(tiny_base)), adapter_run / "adapter")
    assert list(tmp_path.iterdir()) == []
