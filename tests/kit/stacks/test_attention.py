"""Which attention a run uses, by recorded facts alone: named, with why not a faster one; and rows never leak."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kit.checks import rules
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.machine import facts as machines
from kit.machine.platforms import judge
from kit.stacks.attention import AttentionChoice, choose, problem_of
from kit.stacks.stack import Stack, installed_stack, stack_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.cli.findings import Finding

H100 = PROJECT_ROOT / "configs" / "training_config_h100.yaml"
CURRENT = {"torch": "2.10.0", "transformers": "5.23.0", "bitsandbytes": "0.50.2"}
REFERENCE = {"torch": "2.1.0", "transformers": "4.36.0", "bitsandbytes": "0.41.0"}
FA2, FA3, FA4 = {"flash-attn": "2.8.3"}, {"flash-attn-3": "3.0.0"}, {"flash-attn-4": "4.0.0b36"}
FLOAT32 = {"model.torch_dtype": "float32", "training.bf16": False}
NONE_INSTALLED = ("is not installed (flash-attn-3)", "is not installed (flash-attn)")
FREE = {"training.padding_free": True}
WINDOWED = {"model.model_name_or_path": "mistralai/Mistral-7B-v0.1", "training.max_seq_length": 8192}


def _machine(name: str) -> Any:
    machine = machines.read(PROJECT_ROOT / f"tests/fixtures/machines/{name}.json")
    return machine, judge(machine)


def _choice(machine: str, versions: dict[str, str], **overrides: Any) -> AttentionChoice:
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
        ("h100_80gb", CURRENT, FREE, "varlen"),
        ("h100_80gb", CURRENT | FA4, {}, "sdpa"),
        ("h100_80gb", CURRENT | FA4, FREE, "varlen"),
        ("h100_80gb", CURRENT | FA4, {"model.attn_implementation": "flash_attention_4"}, "flash_attention_4"),
        ("h100_80gb", CURRENT | {"torch": "2.9.1"}, FREE, "flex_attention"),
        ("h100_80gb", CURRENT | FA2, FREE | FLOAT32, "flex_attention"),
        ("h100_80gb", CURRENT, FREE | WINDOWED, "flex_attention"),
        ("h100_80gb", CURRENT | {"torch": "2.11.0"}, FREE | WINDOWED, "varlen"),
        ("h100_80gb", CURRENT, FREE | WINDOWED | {"training.max_seq_length": 4096}, "varlen"),
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
        *("flash_attention_4", "flash_attention_3", "flash_attention_2", "sdpa", "varlen", "flex_attention", "eager")
    }
    assert all(kernel.problem for kernel in choice.others)


@pytest.mark.parametrize(
    ("machine", "versions", "changes", "reasons"),
    [
        ("h100_80gb", CURRENT, {}, ["is not installed (flash-attn-4)", *NONE_INSTALLED]),
        (
            "h100_80gb",
            CURRENT | FA4,
            {},
            ["must be requested, as it is not measured", *NONE_INSTALLED],
        ),
        (
            "a100_40gb",
            CURRENT | FA2 | FA3 | FA4,
            {},
            [
                "needs a Hopper or Blackwell GPU, compute capability 9.0 or later, and this GPU has 8.0",
                "needs a Hopper GPU, compute capability 9.0, and this GPU has 8.0",
            ],
        ),
        (
            "h100_80gb",
            CURRENT | FA2 | FA3,
            FLOAT32 | {"model.attn_implementation": "sdpa"},
            ["works in bfloat16 or float16 only, and this run is float32"] * 3,
        ),
        (
            "h100_80gb",
            CURRENT,
            FREE,
            [
                *("is not installed (flash-attn-4)", *NONE_INSTALLED),
                "needs a mask of the micro-batch's tokens squared for padding-free rows",
            ],
        ),
        (
            "h100_80gb",
            CURRENT | {"torch": "2.9.1"},
            FREE | {"model.attn_implementation": "flex_attention"},
            [
                *("is not installed (flash-attn-4)", *NONE_INSTALLED, "was not requested"),
                "needs torch 2.10 or later, and 2.9.1 is installed",
            ],
        ),
        (
            "h100_80gb",
            CURRENT | FA2,
            {"model.attn_implementation": "sdpa"},
            ["is not installed (flash-attn-4)", "is not installed (flash-attn-3)", "was not requested"],
        ),
        ("h100_80gb", REFERENCE | FA2 | FA3, {}, ["transformers 4.36.0 does not have for Mistral"] * 2),
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


def _errors(machine: str, versions: dict[str, str], changes: dict[str, Any]) -> list[Finding]:
    facts, judgement = _machine(machine)
    findings = rules.check(resolve(H100, changes), judgement, facts, Stack(stack_of(versions).name, versions))
    wanted = {"config.device.flash_attention", "config.device.attention"}
    return [item for item in findings if item.id in wanted and item.severity == "error"]


F3, F4, VARLEN = "flash_attention_3", "flash_attention_4", "varlen"


@pytest.mark.parametrize(
    ("attention", "machine", "versions", "words"),
    [
        (F3, "h100_80gb", CURRENT | FA3, None),
        (F3, "h100_mig_slice", CURRENT | FA3, None),
        (F3, "h100_80gb", CURRENT, "FlashAttention 3 is not installed (flash-attn-3)"),
        (F3, "a100_40gb", CURRENT | FA3, "FlashAttention 3 needs a Hopper GPU"),
        (F3, "linux_cpu", CURRENT | FA3, "FlashAttention 3 needs CUDA"),
        (F3, "m4_32gb", CURRENT | FA3, "FlashAttention 3 needs CUDA"),
        (F3, "h100_80gb", REFERENCE | FA3, "transformers 4.36.0 does not have for Mistral"),
        (F4, "h100_80gb", CURRENT | FA4, None),
        (F4, "h100_80gb", CURRENT, "FlashAttention 4 is not installed (flash-attn-4)"),
        (F4, "a100_40gb", CURRENT | FA4, "FlashAttention 4 needs a Hopper or Blackwell GPU"),
        (F4, "linux_cpu", CURRENT | FA4, "FlashAttention 4 needs CUDA"),
        (F4, "h100_80gb", REFERENCE | FA4, "transformers 4.36.0 does not have for Mistral"),
        (VARLEN, "h100_80gb", CURRENT, None),
        (VARLEN, "a100_40gb", CURRENT, None),
        (VARLEN, "linux_cpu", CURRENT, "torch's varlen needs CUDA; this platform is cpu"),
        (VARLEN, "m4_32gb", CURRENT | {"torch": "2.15.0"}, "torch's varlen needs CUDA; this platform is m4"),
        (VARLEN, "h100_80gb", CURRENT | {"torch": "2.9.1"}, "torch's varlen needs torch 2.10 or later"),
        (VARLEN, "h100_80gb", REFERENCE, "transformers 4.36.0 does not have for Mistral"),
    ],
)
def test_a_kernel_is_refused_where_it_cannot_run(
    attention: str, machine: str, versions: Any, words: str | None
) -> None:
    found = _errors(machine, versions, {"model.attn_implementation": attention})
    assert bool(found) is (words is not None)
    assert all(words is not None and words in finding.message for finding in found)


def test_varlen_is_refused_for_rows_longer_than_a_window_it_does_not_know() -> None:
    asked = {"model.attn_implementation": VARLEN, **WINDOWED}
    (refused,) = _errors("h100_80gb", CURRENT, asked)
    assert refused.message.endswith("has no sliding window before torch 2.11, but the model's is 4,096 tokens")
    assert not _errors("h100_80gb", CURRENT | {"torch": "2.11.0"}, asked)


def test_varlen_is_refused_on_an_older_gpu() -> None:
    problem = problem_of(VARLEN, resolve(H100).settings, stack_of(CURRENT), "cuda", (7, 5))
    assert problem == "needs compute capability 8.0 or later, and this GPU has 7.5"


def test_what_is_missing_names_the_command_that_installs_it() -> None:
    (refused,) = _errors("h100_80gb", CURRENT, {"model.attn_implementation": F4})
    assert refused.fix.startswith('make setup ARGS="--with attention"')


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_row_laid_end_to_end_is_computed_as_if_it_were_alone(attention: str) -> None:
    """Without a kernel for it, a mask keeps the rows apart: right, and slow."""
    torch = pytest.importorskip("torch", reason="needs the libraries: make setup")
    if installed_stack().name != "current":
        pytest.skip("rows lie end to end on the current stack alone")
    from transformers import MistralConfig, MistralForCausalLM

    from kit.train.performance import PaddingFreeCollator

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=None, attn_implementation=attention, use_cache=False,
    )  # fmt: skip
    model = MistralForCausalLM(config).train()
    rows = [torch.randint(0, 64, (length,)).tolist() for length in (7, 5, 9)]
    joined = PaddingFreeCollator()([{"input_ids": row, "labels": row} for row in rows])
    together = model(**joined).logits[0].split([7, 5, 9])
    for row, found in zip(rows, together, strict=True):
        alone = model(input_ids=torch.tensor([row])).logits[0]
        assert torch.allclose(found, alone, atol=1e-5)
