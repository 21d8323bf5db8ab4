from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kit.config.resolve import resolve
from kit.config.schema import LINEAR_MODULES
from kit.estimate import estimate_memory, memory_limit, training_hours, training_tokens
from kit.interpreter import PROJECT_ROOT
from kit.machine.facts import Apple, Gpu, Machine
from kit.model.shape import KNOWN_SHAPES, MISTRAL_7B, ModelShape, shape_of

if TYPE_CHECKING:
    from pathlib import Path

    from kit.config.settings import Settings

H100 = PROJECT_ROOT / "configs" / "training_config_h100.yaml"
MACHINE = Machine("Linux", "x86_64", "3.11.9", "x86", 8, 64 * 10**9, 48 * 10**9, 10**12, in_container=False)
SMALL = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def _settings(**overrides: Any) -> Settings:
    return resolve(H100, {key.replace("__", "."): value for key, value in overrides.items()}).settings


def _peak_gb(fused_loss: bool = True, attention: str = "sdpa", platform: str = "h100", **overrides: Any) -> float:
    settings = _settings(**overrides)
    return estimate_memory(MISTRAL_7B, settings, platform, attention, fused_loss=fused_loss).peak_memory_bytes / 1e9


def test_mistral_7b_has_its_known_numbers_of_parameters() -> None:
    assert MISTRAL_7B.linear_parameters == 6_979_321_856
    assert MISTRAL_7B.embedding_parameters == 2 * 131_072_000
    assert MISTRAL_7B.lora_parameters(16, LINEAR_MODULES) == 41_943_040


def test_the_fixed_terms_are_those_of_the_projects_arithmetic() -> None:
    terms = estimate_memory(MISTRAL_7B, _settings(), "h100", "sdpa", fused_loss=True).terms
    sizes = {term.name: term.size_bytes / 1e9 for term in terms}
    assert sizes["base model"] == pytest.approx(3.60, abs=0.005)
    assert sizes["embedding and head"] == pytest.approx(0.52, abs=0.005)
    assert sizes["adapter, gradients, optimizer"] == pytest.approx(0.67, abs=0.005)
    assert sizes["one layer expanded from 4 bits"] == pytest.approx(0.12, abs=0.005)


@pytest.mark.parametrize(
    ("overrides", "expected_gb"),
    [
        ({"training__per_device_train_batch_size": 4}, 13),
        ({"training__per_device_train_batch_size": 8}, 22),
        (
            {
                "training__per_device_train_batch_size": 2,
                "training__gradient_checkpointing": False,
                "lora__lora_dropout": 0,
            },
            53,
        ),
    ],
)
def test_the_peak_is_near_the_projects_own_figures(overrides: dict[str, Any], expected_gb: float) -> None:
    assert _peak_gb(**overrides) == pytest.approx(expected_gb, rel=0.1)


@pytest.mark.parametrize(
    ("overrides", "more"),
    [
        ({"training__per_device_train_batch_size": 8}, True),
        ({"training__max_seq_length": 8192}, True),
        ({"lora__r": 64}, True),
        ({"quantization__load_in_4bit": False}, True),
        ({"quantization__bnb_4bit_use_double_quant": False}, True),
        ({"training__gradient_checkpointing": False}, True),
        ({"model__torch_dtype": "float32"}, True),
        ({"attention": "eager"}, True),
        ({"fused_loss": False}, True),
        ({"training__optim": "paged_adamw_8bit"}, False),
        ({"lora__adapter_dtype": "bfloat16"}, False),
        ({"lora__target_modules": ["q_proj"]}, False),
        ({"platform": "m4"}, False),
    ],
)
def test_each_choice_moves_the_peak_the_right_way(overrides: dict[str, Any], more: bool) -> None:
    assert (_peak_gb(**overrides) > _peak_gb()) is more


def test_a_cuda_gpu_lends_what_is_not_in_use() -> None:
    limit = memory_limit(MACHINE, "h100", Gpu(0, "H100", 80 * 10**9, 30 * 10**9))
    assert limit is not None
    assert limit.size_bytes == 50 * 10**9


def test_metal_lends_about_three_quarters() -> None:
    apple = Apple("Apple M4", (26, 0), is_apple_silicon=True, is_rosetta=False, unified_memory_bytes=32 * 10**9)
    machine = Machine("Darwin", "arm64", "3.11", "M4", 10, 32 * 10**9, 1, 1, in_container=False, apple=apple)
    limit = memory_limit(machine, "m4", None)
    assert limit is not None
    assert limit.size_bytes == 24 * 10**9
    assert "about" in limit.reason


def test_a_cpu_lends_what_is_available_and_an_unknown_machine_nothing() -> None:
    limit = memory_limit(MACHINE, "cpu", None)
    assert limit is not None
    assert limit.size_bytes == 48 * 10**9
    assert memory_limit(Machine("Linux", "x", "3", "", 1, None, None, None, in_container=False), "cpu", None) is None
    assert memory_limit(MACHINE, "m4", None) is None


def test_tokens_are_counted_by_epochs_or_by_steps() -> None:
    assert training_tokens(_settings(training__max_seq_length=2048), 15_000) == 92_160_000
    assert training_tokens(_settings(training__max_steps=10), 15_000) == 10 * 16 * 4096


def test_time_is_stated_for_large_models_only() -> None:
    low, high = training_hours(MISTRAL_7B, 92_160_000, "m4") or (0, 0)
    assert low == pytest.approx(184, rel=0.01)
    assert high == pytest.approx(320, rel=0.01)
    assert training_hours(ModelShape(**SMALL, head_dim=32), 1_000_000, "cpu") is None


def test_a_local_models_shape_is_read_from_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL), encoding="utf-8")
    assert shape_of(str(tmp_path)) == ModelShape(**SMALL, head_dim=32)


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "null", "{}", "\xff"),
        *(
            json.dumps(SMALL | wrong)
            for wrong in (
                {"hidden_size": "big"},
                {"vocab_size": -1},
                {"num_attention_heads": 0},
                {"num_hidden_layers": True},
            )
        ),
    ],
)
def test_a_model_that_does_not_tell_its_shape_has_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    assert shape_of(str(tmp_path)) is None


def test_an_unknown_name_has_no_shape_and_a_known_one_has() -> None:
    assert shape_of("someone/some-model") is None
    assert shape_of("mistralai/Mistral-7B-Instruct-v0.2") is MISTRAL_7B
    assert all(shape.linear_parameters == MISTRAL_7B.linear_parameters for shape in KNOWN_SHAPES.values())
