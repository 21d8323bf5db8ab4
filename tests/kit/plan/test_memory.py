from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.model.shape import MISTRAL_7B
from kit.plan.activations import saved_by_layer, saved_by_model
from kit.plan.memory import paged_bytes, plan_peak, quantised_weights
from kit.plan.step import MicroBatch, TrainingStep
from kit.stacks.registry import GENERATIONS

if TYPE_CHECKING:
    from kit.config.settings import Settings

H100 = PROJECT_ROOT / "configs" / "training_config_h100.yaml"


def _settings(**overrides: Any) -> Settings:
    return resolve(H100, {key.replace("__", "."): value for key, value in overrides.items()}).settings


def _job(
    stack: str = "current", attention: str = "sdpa", device: str = "cuda", apart: int = 1, **more: Any
) -> TrainingStep:
    rows, length, padded = more.pop("rows", 4), more.pop("length", 4096), more.pop("padded", False)
    batch = MicroBatch(rows, length, padded, rows * (length - 1))
    return TrainingStep(MISTRAL_7B, _settings(**more), GENERATIONS[stack].traits, device, attention, batch, apart)


def _peak_gb(**more: Any) -> float:
    return plan_peak(_job(**more)).peak_memory_bytes / 1e9


def test_what_always_stands_is_the_projects_own_arithmetic() -> None:
    sizes = {term.name: term.size_bytes / 1e9 for term in plan_peak(_job()).terms}
    assert sizes["frozen linear layers"] + sizes["quantisation constants"] == pytest.approx(3.60, abs=0.005)
    assert sizes["embedding, head and norms"] == pytest.approx(0.525, abs=0.001)
    adapter = sizes["adapter"] + sizes["adapter gradients"] + sizes["optimizer"]
    assert adapter == pytest.approx(0.671, abs=0.001)


def test_double_quantisation_takes_0_5159_bytes_a_parameter_and_single_0_5625() -> None:
    for double, each in ((True, 0.5159), (False, 0.5625)):
        whole = sum(quantised_weights(MISTRAL_7B, _settings(quantization__bnb_4bit_use_double_quant=double)))
        assert whole / MISTRAL_7B.linear_parameters == pytest.approx(each, abs=0.0001)


def test_the_terms_are_the_peak() -> None:
    peak = plan_peak(_job())
    assert sum(term.size_bytes for term in peak.terms) == peak.peak_memory_bytes
    assert all(term.size_bytes > 0 for term in peak.terms)
    assert peak.allocated_bytes < peak.peak_memory_bytes


def test_a_layer_of_mistral_7b_keeps_what_was_counted_on_a_small_one_scaled_up() -> None:
    """A dropout mask takes two bytes an element on a CPU, where 295.3 kB were counted, and one on CUDA."""
    for dropout, on_cuda in ((0.0, 184.7), (0.05, 295.3 - 38.9)):
        layer = saved_by_layer(_job(rows=1, lora__lora_dropout=dropout))
        tokens = [item.size_bytes for item in layer if not item.name.endswith("cast_adapter")]
        assert sum(tokens) / 4096 / 1e3 == pytest.approx(on_cuda, abs=0.1)


def test_cublas_has_two_workspaces_larger_on_hopper_and_where_nothing_is_known() -> None:
    for capability, size in (((9, 0), 32 << 20), ((8, 0), (8 << 20) + (128 << 10)), (None, 32 << 20)):
        terms = {term.name: term.size_bytes for term in plan_peak(replace(_job(), capability=capability)).terms}
        assert terms["cuBLAS workspaces"] == 2 * size


def test_a_cpus_heap_keeps_freed_blocks_that_are_too_small_to_be_mapped() -> None:
    small, large = (plan_peak(_job(device="cpu", rows=1, length=length)) for length in (64, 4096))
    kept, of = ({term.name: term.size_bytes for term in peak.terms} for peak in (small, large))
    name = "freed blocks that the C library keeps"
    assert kept[name] == pytest.approx(0.6 * (kept["saved activations"] + kept["one recomputed layer"]), rel=0.01)
    assert of["saved activations"] > 10 * kept["saved activations"]
    assert of[name] < kept[name]
    assert small.peak_memory_bytes - small.allocated_bytes == kept["mapped files of the libraries"]
    assert small.moving_bytes > kept["saved activations"] + kept[name]


@pytest.mark.parametrize("layers_apart", [1, 2, 3, 4, 8, 32])
def test_a_checkpointed_layer_keeps_its_input_alone(layers_apart: int) -> None:
    job = _job(apart=layers_apart)
    whole = sum(item.size_bytes for item in saved_by_layer(job))
    checkpointed = -(-32 // layers_apart)
    assert job.checkpointed_layers == checkpointed
    assert [job.is_checkpointed(layer) for layer in range(32)].count(True) == checkpointed
    kept = saved_by_model(job) - checkpointed * 4 * 4096 * 4096 * 2
    assert kept == pytest.approx((32 - checkpointed) * whole + 4 * 4096 * (4096 * 4 + 4), rel=0.001)


@pytest.mark.parametrize(
    ("overrides", "more"),
    [
        ({"rows": 8}, True),
        ({"length": 8192}, True),
        ({"lora__r": 64}, True),
        ({"quantization__load_in_4bit": False}, True),
        ({"quantization__bnb_4bit_use_double_quant": False}, True),
        ({"training__gradient_checkpointing": False}, True),
        ({"model__torch_dtype": "float32"}, True),
        ({"attention": "eager"}, True),
        ({"padded": True}, True),
        ({"apart": 2}, True),
        ({"stack": "reference", "attention": "flash_attention_2"}, True),
        ({"training__optim": "paged_adamw_8bit"}, False),
        ({"training__optim": "sgd"}, False),
        ({"lora__adapter_dtype": "bfloat16"}, False),
        ({"lora__lora_dropout": 0.0}, False),
        ({"lora__target_modules": ["q_proj"]}, False),
    ],
)
def test_each_choice_moves_the_peak_the_right_way(overrides: dict[str, Any], more: bool) -> None:
    assert (_peak_gb(**overrides) > _peak_gb()) is more


def test_padding_costs_flash_attention_nothing() -> None:
    assert _peak_gb(attention="flash_attention_2", padded=True) == _peak_gb(attention="flash_attention_2")


def test_the_reference_stack_holds_all_logits_in_float32_three_times() -> None:
    job = _job(stack="reference", attention="flash_attention_2")
    sizes = {term.name: term.size_bytes for term in plan_peak(job).terms}
    assert plan_peak(job).moment == "loss"
    assert sizes["logits and loss"] == pytest.approx(12 * 4 * 4095 * 32_000, rel=0.001)


def test_the_current_stack_scores_labelled_tokens_alone_on_a_gpu_and_all_elsewhere() -> None:
    for device, fewer in (("cuda", True), ("cpu", False)):
        job = _job(device=device, training__gradient_checkpointing=False)
        answers = replace(job, batch=replace(job.batch, loss_tokens=100))
        all_tokens, some = (plan_peak(item) for item in (job, answers))
        if fewer:
            assert some.peak_memory_bytes <= all_tokens.peak_memory_bytes
            assert saved_by_model(job) == saved_by_model(answers)
        else:
            assert some.peak_memory_bytes == all_tokens.peak_memory_bytes


def test_a_paged_optimizer_keeps_its_large_tensors_outside_the_allocator() -> None:
    """A of q, k, v, o, gate and up is 16 x 4096 = 65,536 and stays inside; so are B of k and v, 16 x 1024."""
    inside = 6 * 65_536 + 2 * 16_384 + 2 * 65_536 + 65_536
    outside = MISTRAL_7B.lora_parameters(16, _settings().lora.target_modules) - 32 * inside
    assert paged_bytes(MISTRAL_7B, _settings()) == outside * 8
    assert paged_bytes(MISTRAL_7B, _settings(training__optim="adamw_torch")) == 0


def test_tied_embeddings_count_once() -> None:
    job = _job()
    tied = replace(job, shape=replace(MISTRAL_7B, tie_word_embeddings=True))
    assert plan_peak(job).peak_memory_bytes - plan_peak(tied).peak_memory_bytes == 32_000 * 4096 * 2
