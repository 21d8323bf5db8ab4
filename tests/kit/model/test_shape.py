from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kit.config.keys import LINEAR_MODULES, ModelSettings
from kit.model.shape import KNOWN_SHAPES, MISTRAL_7B, ModelShape, read_shape, shape_of

if TYPE_CHECKING:
    from pathlib import Path

SMALL = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def model(name: object) -> ModelSettings:
    return ModelSettings(model_name_or_path=str(name))


def sizes(**changes: int) -> ModelShape:
    return ModelShape(**{key: value for key, value in SMALL.items() if key != "model_type"}, **changes)  # type: ignore[arg-type]


def test_mistral_7b_has_its_known_numbers_of_parameters() -> None:
    assert MISTRAL_7B.linear_parameters == 6_979_321_856
    assert MISTRAL_7B.embedding_parameters == 2 * 131_072_000
    assert MISTRAL_7B.norm_parameters == 65 * 4096
    assert MISTRAL_7B.parameters == 7_241_732_096
    assert MISTRAL_7B.lora_parameters(16, LINEAR_MODULES) == 41_943_040


def test_a_local_models_shape_is_read_from_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL), encoding="utf-8")
    assert shape_of(model(tmp_path)) == sizes(head_dim=32)
    assert read_shape(tmp_path / "config.json") == sizes(head_dim=32)


def test_what_a_config_leaves_out_follows_from_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SMALL | {"num_key_value_heads": None, "tie_word_embeddings": True}), encoding="utf-8")
    shape = read_shape(path)
    assert shape.num_key_value_heads == 4
    assert shape.embedding_parameters == 512 * 128
    path.write_text(json.dumps(SMALL | {"head_dim": 64}), encoding="utf-8")
    assert read_shape(path).linear_sizes["o_proj"] == (256, 128)


def test_what_a_family_fills_in_by_itself_is_filled_in(tmp_path: Path) -> None:
    """Mistral's configuration class takes 8 heads for keys where config.json names none, Llama's as many as queries."""
    path = tmp_path / "config.json"
    without = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}
    for kind, heads in (("llama", 16), ("mistral", 8)):
        path.write_text(json.dumps(without | {"model_type": kind, "num_attention_heads": 16}), encoding="utf-8")
        assert read_shape(path).num_key_value_heads == heads


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
                {"num_local_experts": 8},
                {"model_type": "gemma"},
                {"model_type": None},
                {"tie_word_embeddings": "yes"},
                {"num_attention_heads": 3},
            )
        ),
    ],
)
def test_a_model_that_does_not_tell_its_shape_has_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    assert shape_of(model(tmp_path)) is None


def test_an_unknown_name_has_no_shape_and_a_known_one_has() -> None:
    assert shape_of(model("someone/some-model")) is None
    assert shape_of(model("mistralai/Mistral-7B-Instruct-v0.2")) is MISTRAL_7B
    assert all(shape.linear_parameters == MISTRAL_7B.linear_parameters for shape in KNOWN_SHAPES.values())
