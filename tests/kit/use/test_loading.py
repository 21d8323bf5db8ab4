"""What is loaded is what the run had, or the difference is said; what cannot be loaded is refused before torch is."""

from __future__ import annotations

import argparse
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from adapter_files import write_adapter
from kit.run_directory.history import RunError
from kit.stacks.stack import Stack, installed_stack
from kit.use.loading import LoadChoice, add_run_arguments, choose, load
from small_base import write_base

if TYPE_CHECKING:
    from pathlib import Path

    from chat_folders import ChatFolder

REFERENCE = Stack("reference", {"torch": "2.1.0", "transformers": "4.36.0"})
CURRENT = Stack("current", {"torch": "2.10.0", "transformers": "5.23.0"})


@pytest.fixture(scope="module")
def base(chat_folder: ChatFolder) -> Path:
    folder = chat_folder()
    return write_base(folder, max_position_embeddings=512)


@pytest.fixture
def run(base: Path, tmp_path: Path) -> Path:
    """A run as far as its folder tells it; its base has no weights."""
    from adapter_run import run_settings

    settings = run_settings(base, tmp_path)
    write_adapter(tmp_path / "adapter")
    _write(tmp_path, settings.as_mapping())
    return tmp_path


def _write(folder: Path, config: dict[str, Any]) -> None:
    receipt = {"run_name": "demo", "state": "finished", "config": config}
    (folder / "run.json").write_text(json.dumps(receipt), encoding="utf-8")


def _change(folder: Path, section: str, **values: Any) -> None:
    config = json.loads((folder / "run.json").read_text(encoding="utf-8"))["config"]
    config[section] |= values
    _write(folder, config)


def _choose(run: Path, *arguments: str, stack: Stack = CURRENT) -> LoadChoice:
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    return choose(parser.parse_args([str(run), "--cpu", *arguments]), stack)


def test_a_run_is_loaded_as_it_was_trained(run: Path) -> None:
    choice = _choose(run)
    assert (choice.adapter, choice.platform, choice.how) == (run / "adapter", "cpu", "4 bits (nf4)")
    assert choice.context_length == 512
    assert choice.remarks == ()
    assert choice.is_the_runs_own


def test_four_bits_are_refused_where_the_stack_has_none_and_not_quietly_dropped(run: Path) -> None:
    with pytest.raises(RunError, match=r"4 bits, which the reference stack cannot load on cpu; .*--unquantised"):
        _choose(run, stack=REFERENCE)
    choice = _choose(run, "--unquantised", stack=REFERENCE)
    assert choice.how == "float32"
    assert choice.remarks == ("the base is loaded in float32; the adapter was trained on it in 4 bits",)


@pytest.mark.parametrize("attention", ["flash_attention_2", "sdpa"])
def test_attention_that_is_not_here_is_replaced_and_said(run: Path, attention: str) -> None:
    _change(run, "model", attn_implementation=attention)
    choice = _choose(run, "--unquantised", stack=REFERENCE)
    assert choice.settings.model.attn_implementation == "eager"
    assert f"attention is eager, was {attention} in the run" in choice.remarks


@pytest.mark.parametrize("attention", ["flash_attention_2", "flash_attention_4", "varlen"])
def test_a_kernel_of_nvidias_gpus_is_replaced_on_a_cpu(run: Path, attention: str) -> None:
    _change(run, "model", attn_implementation=attention)
    packages = {"torch": "2.10.0", "transformers": "5.23.0", "flash-attn": "2.8.3", "flash-attn-4": "4.0.0b36"}
    choice = _choose(run, stack=Stack("current", packages))
    assert choice.settings.model.attn_implementation == "sdpa"
    assert f"attention is sdpa, was {attention} in the run" in choice.remarks


def test_a_checkpoint_can_take_the_adapters_place(run: Path) -> None:
    checkpoint = write_adapter(run / "checkpoints/checkpoint-100", base_model_name_or_path="elsewhere")
    choice = _choose(run, "--adapter", str(checkpoint))
    assert choice.adapter == checkpoint
    assert not choice.is_the_runs_own
    assert any("was trained on elsewhere, loaded on" in remark for remark in choice.remarks)


def test_a_folder_without_an_adapter_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"has no adapter_config\.json; name an adapter"):
        _choose(run, "--adapter", str(tmp_path / "nothing"))


class RunsCode:
    """What a pickle can be: reading it calls whatever it names."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


def test_an_adapter_in_a_format_that_can_run_code_is_refused_unread(run: Path, tmp_path: Path) -> None:
    from kit.modeling.adapter_in_use import load_adapter

    adapter = run / "adapter"
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(RunsCode(tmp_path / "it-ran")))
    with pytest.raises(RunError, match=r"has no adapter_model\.safetensors, and other formats"):
        _choose(run)
    with pytest.raises(RunError, match=r"has no adapter_model\.safetensors"):
        _choose(run, "--adapter", str(adapter))
    with pytest.raises(RunError, match=r"adapter_model\.safetensors: cannot be read"):
        load_adapter(None, adapter)
    assert not (tmp_path / "it-ran").exists()


def test_a_base_that_is_gone_is_named_with_the_fix(run: Path) -> None:
    _change(run, "model", model_name_or_path="./no-such-base")
    with pytest.raises(RunError, match=r"\./no-such-base: there is no such folder; give a model's folder"):
        _choose(run)


def test_bfloat16_on_a_cpu_is_said_to_be_slow(run: Path) -> None:
    _change(run, "model", torch_dtype="bfloat16")
    assert "the run's dtype is bfloat16, which is slow on most CPUs" in _choose(run).remarks


def test_the_adapter_can_be_switched_off_and_on(adapter_run: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the libraries: make setup")
    loaded = load(_choose(adapter_run, stack=installed_stack()))
    ids = torch.tensor([[3, 4, 5]])
    answers = []
    for adapter in (True, False, True):
        with loaded.active(adapter=adapter) as model:
            answers.append(model(input_ids=ids).logits)
    from kit.modeling.model import load_base_model

    alone = load_base_model(loaded.choice.settings, "cpu")(input_ids=ids).logits
    assert torch.allclose(answers[1], alone, atol=1e-6)
    assert torch.equal(answers[0], answers[2])
    assert not torch.allclose(answers[0], answers[1], atol=1e-2)
    assert not answers[0].requires_grad
