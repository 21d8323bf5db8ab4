"""Which attention a run uses, by recorded facts alone: named, with why not a faster one; and rows never leak."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kit import rules
from kit.config.resolve import resolve
from kit.interpreter import PROJECT_ROOT
from kit.machine import facts as machines
from kit.machine.platforms import judge
from kit.stack import Stack, installed_stack, stack_of
from kit.stack.attention import Choice, choose

if TYPE_CHECKING:
    from collections.abc import Sequence

H100 = PROJECT_ROOT / "configs" / "training_config_h100.yaml"
CURRENT = {"torch": "2.10.0", "transformers": "5.23.0", "bitsandbytes": "0.50.2"}
REFERENCE = {"torch": "2.1.0", "transformers": "4.36.0", "bitsandbytes": "0.41.0"}
FA2, FA3 = {"flash-attn": "2.8.3"}, {"flash-attn-3": "3.0.0"}
FLOAT32 = {"model.torch_dtype": "float32", "training.bf16": False}
FREE = {"training.padding_free": True}


def _machine(name: str) -> Any:
    machine = machines.read(PROJECT_ROOT / f"tests/fixtures/machines/{name}.json")
    return machine, judge(machine)


def _choice(machine: str, versions: dict[str, str], **overrides: Any) -> Choice:
    _, judgement = _machine(machine)
    settings = resolve(H100, overrides.pop("changes", {})).settings
    return choose(
        settings, stack_of(versions), judgement.platform, judgement.gpu.compute_capability if judgement.gpu else None
    )


@pytest.mark.parametrize(
    ("machine", "versions", "changes", "used"),
    [
        ("h100_80gb", CURRENT | FA2 | FA3, {}, "flash_attention_3"),
        ("h100_80gb", CURRENT | FA2, {}, "flash_attention_2"),
        ("h100_80gb", CURRENT, {}, "sdpa"),
        ("h200", CURRENT | FA3, {}, "flash_attention_3"),
        ("a100_40gb", CURRENT | FA2 | FA3, {}, "flash_attention_2"),
        ("a100_40gb", CURRENT | FA3, {}, "sdpa"),
        ("linux_cpu", CURRENT | FA2 | FA3, {}, "sdpa"),
        ("m4_32gb", CURRENT | FA2 | FA3, {}, "sdpa"),
        ("h100_80gb", REFERENCE | FA2 | FA3, {}, "flash_attention_2"),
        ("h100_80gb", REFERENCE | FA3, {}, "eager"),
        ("h100_80gb", CURRENT | FA2 | FA3, FREE, "flash_attention_3"),
        ("h100_80gb", CURRENT, FREE, "flex_attention"),
        ("a100_40gb", CURRENT | FA2, FREE, "flash_attention_2"),
        ("m4_32gb", CURRENT, FREE, "sdpa"),
        ("linux_cpu", CURRENT, FREE, "sdpa"),
        ("h100_80gb", CURRENT | FA2 | FA3, {"model.attn_implementation": "sdpa"}, "sdpa"),
    ],
)
def test_the_best_that_is_there_is_used(machine: str, versions: Any, changes: Any, used: str) -> None:
    choice = _choice(machine, versions, changes=changes)
    assert choice.used.name == used
    assert {kernel.name for kernel in choice.others} | {used} == {
        *("flash_attention_3", "flash_attention_2", "sdpa", "flex_attention", "eager")
    }
    assert all(kernel.problem for kernel in choice.others)


@pytest.mark.parametrize(
    ("machine", "versions", "changes", "reasons"),
    [
        ("h100_80gb", CURRENT, {}, ["is not installed (flash-attn-3)", "is not installed (flash-attn)"]),
        ("a100_40gb", CURRENT | FA2 | FA3, {}, ["needs a Hopper GPU, compute capability 9.0, and this GPU has 8.0"]),
        (
            "h100_80gb",
            CURRENT | FA2 | FA3,
            FLOAT32 | {"model.attn_implementation": "sdpa"},
            ["works in bfloat16 or float16 only, and this run is float32"] * 2,
        ),
        (
            "h100_80gb",
            CURRENT,
            FREE,
            [
                *("is not installed (flash-attn-3)", "is not installed (flash-attn)"),
                "masks rows laid end to end over the whole micro-batch squared",
            ],
        ),
        ("h100_80gb", CURRENT | FA2, {"model.attn_implementation": "sdpa"}, ["is not installed (flash-attn-3)", "was"]),
        ("h100_80gb", REFERENCE | FA2 | FA3, {}, ["transformers 4.36.0 does not know for Mistral"]),
    ],
)
def test_each_faster_kernel_that_is_not_used_says_why(
    machine: str, versions: Any, changes: Any, reasons: Sequence[str]
) -> None:
    choice = _choice(machine, versions, changes=changes)
    found = [kernel.problem for kernel in choice.passed_over]
    assert len(found) == len(reasons)
    assert all(text.startswith(reason) for text, reason in zip(found, reasons, strict=True))
    line = choice.line(judge(_machine(machine)[0]).platform)
    assert line.startswith(f"attention: {choice.used.name} (")
    assert all(text in line for text in found)


def test_the_log_names_the_kernel_and_its_version_and_is_short_where_nothing_is_faster() -> None:
    assert "FlashAttention 2, flash-attn 2.8.3" in _choice("h100_80gb", CURRENT | FA2).line("h100")
    line = _choice("m4_32gb", CURRENT).line("m4")
    assert "torch 2.10.0's scaled_dot_product_attention" in line
    assert "not flash" not in line


def _errors(machine: str, versions: dict[str, str], changes: dict[str, Any]) -> list[str]:
    facts, judgement = _machine(machine)
    findings = rules.check(resolve(H100, changes), judgement, facts, Stack(stack_of(versions).name, versions))
    wanted = {"config.device.flash_attention", "config.device.attention"}
    return [item.message for item in findings if item.id in wanted and item.severity == "error"]


@pytest.mark.parametrize(
    ("machine", "versions", "words"),
    [
        ("h100_80gb", CURRENT | FA3, None),
        ("h100_mig_slice", CURRENT | FA3, None),
        ("h100_80gb", CURRENT, "FlashAttention 3 is not installed (flash-attn-3)"),
        ("a100_40gb", CURRENT | FA3, "FlashAttention 3 needs a Hopper GPU"),
        ("linux_cpu", CURRENT | FA3, "FlashAttention 3 needs CUDA"),
        ("m4_32gb", CURRENT | FA3, "FlashAttention 3 needs CUDA"),
        ("h100_80gb", REFERENCE | FA3, "transformers 4.36.0 does not know for Mistral"),
    ],
)
def test_flash_attention_3_is_refused_where_it_cannot_run(machine: str, versions: Any, words: str | None) -> None:
    found = _errors(machine, versions, {"model.attn_implementation": "flash_attention_3"})
    assert bool(found) is (words is not None)
    assert all(words is not None and words in message for message in found)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_row_laid_end_to_end_is_computed_as_if_it_were_alone(attention: str) -> None:
    """Without a kernel for it, a mask keeps the rows apart: right, and slow."""
    torch = pytest.importorskip("torch", reason="needs the libraries: make setup")
    if installed_stack().name != "current":
        pytest.skip("rows lie end to end on the current stack alone")
    from transformers import MistralConfig, MistralForCausalLM

    from kit.stack.levers import EndToEnd

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=None, attn_implementation=attention, use_cache=False,
    )  # fmt: skip
    model = MistralForCausalLM(config).train()
    rows = [torch.randint(0, 64, (length,)).tolist() for length in (7, 5, 9)]
    joined = EndToEnd()([{"input_ids": row, "labels": row} for row in rows])
    together = model(input_ids=joined["input_ids"], position_ids=joined["position_ids"]).logits[0].split([7, 5, 9])
    for row, found in zip(rows, together, strict=True):
        alone = model(input_ids=torch.tensor([row])).logits[0]
        assert torch.allclose(found, alone, atol=1e-5)
