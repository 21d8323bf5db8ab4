"""Adapters from elsewhere load everywhere, or are refused with the reason; never something in between."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.adapter import portable
from kit.adapter.portable import make_portable, outside_keys, portable_config, read_portable, tensor_names
from kit.quiet_libraries import quiet_imports
from kit.records.history import RunError

if TYPE_CHECKING:
    from pathlib import Path

MODULES = frozenset({"model.layers.0.self_attn.q_proj"})
PLAIN: dict[str, Any] = {
    "peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["v_proj", "q_proj"], "bias": "none",
    "init_lora_weights": True, "lora_dropout": 0.05, "task_type": "CAUSAL_LM",
}  # fmt: skip


def test_newer_fields_that_are_not_set_are_left_out_without_a_word() -> None:
    found = portable_config({**PLAIN, "use_dora": False, "eva_config": None, "a_field_of_tomorrow": None}, MODULES)
    assert outside_keys(found.config) == []
    assert (found.left_out, found.rewritten) == ((), ())


def test_what_says_only_how_it_was_made_is_left_out_by_name() -> None:
    found = portable_config({**PLAIN, "peft_version": "0.21.2", "runtime_config": {"ephemeral": True}}, MODULES)
    assert found.left_out == ("peft_version", "runtime_config")
    assert found.config["target_modules"] == ["q_proj", "v_proj"]


@pytest.mark.parametrize("key", sorted(portable._CHANGES_RESULT))
def test_what_changes_the_result_is_refused_with_the_reason(key: str) -> None:
    with pytest.raises(RunError, match=f"here: {key} is set, and .*; use it with a peft that knows it"):
        portable_config({**PLAIN, key: {"a": 1}}, MODULES, "here")


def test_a_set_field_nobody_here_knows_is_refused() -> None:
    with pytest.raises(RunError, match="a_field_of_tomorrow is set, which the kit does not know"):
        portable_config({**PLAIN, "a_field_of_tomorrow": 1}, MODULES)


def test_every_field_of_the_installed_peft_is_judged() -> None:
    pytest.importorskip("peft", reason="needs the libraries: make setup")
    with quiet_imports():
        from peft import LoraConfig

    judged = portable.KNOWN_IN_0_7 | portable._HISTORY | set(portable._CHANGES_RESULT)
    assert {field.name for field in dataclasses.fields(LoraConfig)} - judged == {"use_rslora", "exclude_modules"}


def test_what_the_kit_saves_is_portable() -> None:
    pytest.importorskip("peft", reason="needs the libraries: make setup")
    with quiet_imports():
        from kit.stack.model import PORTABLE_LORA_KEYS

    assert PORTABLE_LORA_KEYS <= portable.KNOWN_IN_0_7


def test_rank_stabilised_scaling_is_written_as_an_alpha() -> None:
    found = portable_config({**PLAIN, "use_rslora": True}, MODULES)
    assert found.config["lora_alpha"] / found.config["r"] == 32 / 16**0.5
    assert found.left_out == ()
    assert "use_rslora as lora_alpha 32 x sqrt(16)" in found.rewritten[0]
    with pytest.raises(RunError, match="beside patterns of ranks"):
        portable_config({**PLAIN, "use_rslora": True, "rank_pattern": {"q_proj": 8}}, MODULES)


@pytest.mark.parametrize("change", [{"target_modules": "all-linear"}, {"exclude_modules": ["v_proj"]}])
def test_targets_that_are_not_a_list_of_names_become_the_modules_that_have_weights(change: dict[str, Any]) -> None:
    found = portable_config({**PLAIN, **change}, MODULES)
    assert found.config["target_modules"] == sorted(MODULES)
    assert "names of the 1 modules" in found.rewritten[0]


def test_a_beginning_that_leaves_the_base_alone_is_forgotten_and_one_that_does_not_is_refused() -> None:
    found = portable_config({**PLAIN, "init_lora_weights": "gaussian"}, MODULES)
    assert found.config["init_lora_weights"] is True
    assert found.left_out == ("init_lora_weights",)
    with pytest.raises(RunError, match="begun by 'pissa', which changes the base's own weights"):
        portable_config({**PLAIN, "init_lora_weights": "pissa"}, MODULES)


def test_other_kinds_of_adapter_are_refused() -> None:
    with pytest.raises(RunError, match="its peft_type is 'IA3'"):
        portable_config({**PLAIN, "peft_type": "IA3"}, MODULES)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(st.text(max_size=5), LEAVES, max_size=3)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.sampled_from(sorted({*PLAIN, "use_rslora", "rank_pattern", "exclude_modules"})), JSON))
def test_a_wild_configuration_is_taken_or_refused_and_never_a_crash(changes: dict[str, Any]) -> None:
    try:
        found = portable_config({**PLAIN, **changes}, MODULES)
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
        (b"", "is not safetensors"),
        (b"\x80\x02pickled", "is not safetensors"),
        (None, "weights are read as safetensors"),
    ],
)
def test_weights_that_are_not_safetensors_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "adapter_model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=message):
        tensor_names(path)


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
    with pytest.raises(RunError, match=r"lora_magnitude_vector.*, which is no part of plain LoRA"):
        read_portable(tmp_path)
