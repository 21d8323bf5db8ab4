"""The families that are known whole: their tensors and their defaults are transformers' own, on each stack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.model.families import FAMILIES, beyond_older_words, completed, in_older_words
from kit.model.shape import shape_in
from kit.model.tensors import tensors_of
from kit.stacks.registry import GENERATIONS
from small_base import SIZES

_REFERENCE = PROJECT_ROOT / ".venv-reference" / "bin" / "python"
_ASK = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, CONFIG_MAPPING
answers = []
for content in json.loads(sys.argv[1]):
    kind = content.pop("model_type")
    config = CONFIG_MAPPING[kind](**content)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    # A tied head is the embedding, under a second name.
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    tensors = {name: list(value.shape) for name, value in model.state_dict().items() if name not in tied}
    said = {**config.to_dict(), "rope_theta": getattr(config, "rope_theta", None)}
    said["rope_theta"] = said["rope_theta"] or said.get("rope_parameters", {}).get("rope_theta")
    answers.append({"tensors": tensors, "config": said})
print(json.dumps(answers))
"""
CASES: list[dict[str, Any]] = [
    {"model_type": "mistral", **SIZES},
    {"model_type": "mistral", **SIZES, "head_dim": 16},
    {"model_type": "llama", **SIZES},
    {"model_type": "llama", **SIZES, "attention_bias": True, "tie_word_embeddings": True},
    {"model_type": "llama", **SIZES, "attention_bias": True, "mlp_bias": True, "head_dim": 16},
    {"model_type": "qwen2", **SIZES},
    {"model_type": "qwen2", **SIZES, "tie_word_embeddings": True},
    {"model_type": "qwen3", **SIZES},
    {"model_type": "qwen3", **SIZES, "attention_bias": True, "head_dim": 16},
]
# Heads of another size and biases in the feed-forward part are beyond transformers 4.36; see below.
OF_REFERENCE = [
    case
    for case in CASES
    if case["model_type"] in {"mistral", "llama"} and not {"head_dim", "mlp_bias"} & set(case)
]  # fmt: skip


def _ask(python: str, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    command = [python, "-W", "ignore", "-c", _ASK, json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT_ROOT)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["current", pytest.param("reference", marks=pytest.mark.stacks)])
def test_tensors_and_defaults_are_those_of_transformers(stack: str) -> None:
    if stack == "reference" and not _REFERENCE.exists():
        pytest.skip("there is no .venv-reference: make setup STACK=reference")
    python, cases = (sys.executable, CASES) if stack == "current" else (str(_REFERENCE), OF_REFERENCE)
    for case, answer in zip(cases, _ask(python, cases), strict=True):
        full = completed(case)
        assert {name: list(shape) for name, shape in tensors_of(full, shape_in(full)).items()} == answer["tensors"]
        # What config.json left out is what the class fills in; transformers 4.36 has no such thing for some keys.
        filled = {key: value for key, value in FAMILIES[case["model_type"]].defaults.items() if key not in case}
        there = {key: answer["config"].get(key) for key in filled if key in answer["config"]}
        assert {key: filled[key] for key in there} == there, case["model_type"]
    assert {case["model_type"] for case in cases} == GENERATIONS[stack].traits.reader.families


@pytest.mark.slow
@pytest.mark.stacks
def test_what_is_beyond_the_reference_stack_is_passed_over_by_it_without_a_word() -> None:
    """So the refusal has a reason: transformers 4.36 builds another model from the same configuration."""
    if not _REFERENCE.exists():
        pytest.skip("there is no .venv-reference: make setup STACK=reference")
    case = {"model_type": "mistral", **SIZES, "head_dim": 16}
    full = completed(case)
    tensors = tensors_of(full, shape_in(full))
    (answer,) = _ask(str(_REFERENCE), [case])
    query = "model.layers.0.self_attn.q_proj.weight"
    assert list(tensors[query]) != answer["tensors"][query]
    assert beyond_older_words(full)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"head_dim": 8}, ""),
        ({"head_dim": 16}, "a head_dim of 16"),
        ({"model_type": "llama", "mlp_bias": True}, "biases in the MLP"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "RoPE scaling of type 'linear'"),
        ({"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}}, ""),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}},
         "RoPE scaling of type 'llama3'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}}, "RoPE scaling of type 'yarn'"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, ""),
    ],
)  # fmt: skip
def test_what_the_older_transformers_would_pass_over_is_named(changes: dict[str, Any], words: str) -> None:
    said = beyond_older_words(completed({"model_type": "mistral", **SIZES, **changes}))
    assert words in said
    assert bool(said) == bool(words)


def test_newer_words_for_the_same_are_written_in_older_ones() -> None:
    newer = {
        "model_type": "llama", **SIZES, "dtype": "bfloat16", "pad_token_id": -1,
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500_000.0},
    }  # fmt: skip
    older = in_older_words(completed(newer))
    assert older["rope_theta"] == 500_000.0
    assert older["rope_scaling"] == {"type": "linear", "factor": 2.0}
    assert not {"rope_parameters", "dtype", "pad_token_id"} & set(older)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "model_type is None"),
        ({"model_type": "gemma"}, "model_type is 'gemma'; supported families are mistral, llama"),
        ({"model_type": ["llama"]}, "model_type is"),
        (
            {"model_type": "mistral", "num_local_experts": 8},
            "mixtures of experts are not supported, as adapters keep no experts",
        ),
        ({"model_type": "qwen3_moe", "num_experts": 4}, "mixtures of experts are not supported"),
    ],
)
def test_another_family_is_refused_with_the_list(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        completed(config)


def test_the_page_on_stacks_lists_the_families() -> None:
    page = Path(PROJECT_ROOT / "docs" / "STACKS.md").read_text(encoding="utf-8")
    for name, family in FAMILIES.items():
        stacks = [stack for stack, item in GENERATIONS.items() if name in item.traits.reader.families]
        assert f"| {family.name} (`{name}`) | {', '.join(stacks)} |" in page
