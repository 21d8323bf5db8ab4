"""The shipped configurations: complete, valid for their machine, alike where they must be, true in their comments."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from kit.checks.rules import check
from kit.cli.findings import has_errors
from kit.config import schema
from kit.config.resolve import Resolved, resolve
from kit.machine import facts as machines
from kit.machine.platforms import judge
from kit.model.shape import MISTRAL_7B
from kit.plan.memory import plan_peak
from kit.plan.step import MicroBatch, TrainingStep
from kit.stacks.registry import GENERATIONS
from kit.stacks.stack import stack_of

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.y*ml"))
H100 = ROOT / "configs" / "training_config_h100.yaml"
M4 = ROOT / "configs" / "training_config_m4.yaml"
BASE = ROOT / "configs" / "training_config.yaml"
MACHINES = {
    "training_config": "rtx_4090",
    "training_config_h100": "h100_80gb",
    "training_config_m4": "m4_32gb",
    "training_config_demo": "linux_cpu",
}
CURRENT = stack_of({"torch": "2.10.0", "transformers": "5.23.0", "bitsandbytes": "0.50.2", "wandb": "0.22.0"})
REFERENCE = stack_of(
    {"torch": "2.1.0", "transformers": "4.36.0", "bitsandbytes": "0.41.0", "wandb": "0.16.0", "flash-attn": "2.3.3"}
)

# Where the M4's configuration may differ from the H100's, and why. Anything else would be another experiment.
MAY_DIFFER = {
    "model.attn_implementation": "FlashAttention 2 does not exist on MPS",
    "training.run_name": "two runs, two directories",
    "training.max_seq_length": "4096 tokens take an M4 too long",
    "training.per_device_train_batch_size": "memory; the product with accumulation is equal",
    "training.per_device_eval_batch_size": "memory; changes no weight",
    "training.gradient_accumulation_steps": "memory; the product with the micro-batch is equal",
    "training.padding_free": "auto is false on MPS; the sums are the same",
    "training.optim": "the same 32-bit AdamW; paging needs CUDA",
    "training.torch_empty_cache_steps": "the MPS cache grows; changes no weight",
}


def _check_without_files(resolved: Resolved, machine_name: str, stack_name: str = "current") -> list[str]:
    machine = machines.read(ROOT / "tests" / "fixtures" / "machines" / f"{machine_name}.json")
    stack = CURRENT if stack_name == "current" else REFERENCE
    findings = check(resolved, judge(machine), machine, stack)
    # data/processed/ and models/ are the user's: a fresh clone has neither.
    return [
        f"{finding.id}: {finding.message}"
        for finding in findings
        if finding.severity in {"warning", "error"} and not finding.id.startswith(("config.data.", "config.model."))
    ]


def test_the_shipped_configs_are_as_many_as_expected() -> None:
    assert {path.stem for path in CONFIGS} == set(MACHINES)
    assert len(CONFIGS) == 4


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_says_why_above_each_key(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    bare = [line for before, line in pairwise(lines) if re.match(r"  \w", line) and "  #" not in before]
    assert bare == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_opens_with_its_commands_and_closes_with_time_and_memory(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    opening, closing = text[: text.index("\nmodel:")], text[text.index("  mode: ") :]
    assert all(word in opening for word in ("# Prerequisite:", "# Launch:", "# Override:"))
    assert re.search(r"# (Expected time|Time):", closing)
    assert re.search(r"# (Expected memory|Memory):", closing)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_overrides_a_shipped_config_advertises_are_valid(path: Path) -> None:
    pairs = re.findall(
        r"(?:training|lora|model|quantization|data|wandb)\.\w+=[\w.-]+", path.read_text(encoding="utf-8")
    )
    assert pairs
    resolve(path, [pair.rstrip(".") for pair in pairs])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_is_valid_on_its_machine_without_a_warning(path: Path) -> None:
    assert _check_without_files(resolve(path), MACHINES[path.stem]) == []


@pytest.mark.parametrize("path", [H100, BASE], ids=lambda path: path.stem)
def test_a_cuda_config_is_valid_on_the_reference_stack_with_flash_attention(path: Path) -> None:
    assert _check_without_files(resolve(path), MACHINES[path.stem], "reference") == []


def test_the_recommended_config_of_every_machine_is_shipped() -> None:
    recorded = sorted((ROOT / "tests" / "fixtures" / "machines").glob("*.json"))
    assert recorded
    for path in recorded:
        assert ROOT / judge(machines.read(path)).recommended_config in CONFIGS


def test_h100_and_m4_differ_only_where_they_may() -> None:
    h100, m4 = resolve(H100), resolve(M4)
    differing = {
        key
        for key in schema.keys()  # noqa: SIM118 - a function, not a mapping's method
        if h100.values[key.split(".")[0]][key.split(".")[1]] != m4.values[key.split(".")[0]][key.split(".")[1]]
    }
    assert differing == set(MAY_DIFFER)
    assert all(MAY_DIFFER.values())


def test_the_effective_batch_is_16_on_both() -> None:
    assert resolve(H100).settings.effective_batch_size == 16
    assert resolve(M4).settings.effective_batch_size == 16


def test_the_h100_config_is_the_one_that_was_asked_for() -> None:
    values = resolve(H100).values
    assert values["model"]["model_name_or_path"] == "mistralai/Mistral-7B-Instruct-v0.2"
    assert values["quantization"] == {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "bfloat16",
    }
    assert values["lora"] == {
        "r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "adapter_dtype": "float32",
    }
    assert values["data"] == {
        "train_file": "data/processed/train.jsonl",
        "val_file": "data/processed/val.jsonl",
        "template_date": None,
    }
    asked = {
        "max_seq_length": 4096,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "gradient_checkpointing": True,
        "num_train_epochs": 3.0,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.03,
        "optim": "paged_adamw_32bit",
        "weight_decay": 0.01,
        "max_grad_norm": 0.3,
        "bf16": True,
        "fp16": False,
        "logging_steps": 10,
        "eval_steps": 100,
        "save_steps": 500,
        "save_total_limit": 3,
        "report_to": "wandb",
    }
    assert {key: values["training"][key] for key in asked} == asked
    assert values["wandb"]["project"]
    assert len(values["training"]["run_name"].split("-")) > 2


@pytest.mark.parametrize(
    ("path", "overrides", "attention_and_stack", "stated_gb"),
    [
        (H100, [], "sdpa, current", 15.2),
        (H100, [], "flash_attention_2, reference", 17.4),
        (H100, ["training.per_device_train_batch_size=8"], "sdpa, current", 24.8),
        (
            H100,
            ["training.per_device_train_batch_size=2", "training.gradient_checkpointing=false"],
            "sdpa, current",
            73.6,
        ),
        (
            H100,
            [
                "training.per_device_train_batch_size=2",
                "training.gradient_checkpointing=false",
                "lora.lora_dropout=0",
            ],
            "sdpa, current",
            54.9,
        ),
        (M4, [], "sdpa, current", 7.5),
        (BASE, [], "sdpa, current", 6.9),
        (BASE, [], "eager, reference", 8.6),
    ],
)
def test_the_memory_a_comment_states_is_what_the_plan_gives(
    path: Path, overrides: list[str], attention_and_stack: str, stated_gb: float
) -> None:
    attention, stack = attention_and_stack.split(", ")
    settings = resolve(path, overrides).settings
    rows, length = settings.training.per_device_train_batch_size, settings.training.max_seq_length
    batch = MicroBatch(rows, length, has_padding=False, loss_tokens=rows * (length - 1))
    job = TrainingStep(
        MISTRAL_7B, settings, GENERATIONS[stack].traits, "mps" if path == M4 else "cuda", attention, batch
    )
    assert plan_peak(job).peak_memory_bytes / 1e9 == pytest.approx(stated_gb, rel=0.01)
    closing = path.read_text(encoding="utf-8").split("# Expected memory:")[1]
    assert re.search(rf"(?<![\d.]){re.escape(f'{stated_gb:g}')} GB", closing)


@pytest.mark.parametrize("path", [H100, M4], ids=lambda path: path.stem)
def test_overrides_work_on_both(path: Path) -> None:
    resolved = resolve(path, ["training.learning_rate=1e-4", "lora.r=32", "training.report_to=none"])
    assert resolved.settings.training.learning_rate == 1e-4
    assert resolved.settings.lora.r == 32
    assert resolved.origins["training.report_to"] == "command line"


@pytest.mark.parametrize(
    ("path", "machine_name", "words"),
    [(H100, "m4_32gb", "needs CUDA"), (H100, "linux_cpu", "needs CUDA"), (M4, "h100_80gb", "")],
)
def test_a_config_on_another_machine_is_refused_where_it_cannot_run(path: Path, machine_name: str, words: str) -> None:
    said = _check_without_files(resolve(path), machine_name)
    assert bool(words) == any(words in line for line in said if words)
    assert not words or said


def test_the_demo_config_passes_whole_on_a_cpu() -> None:
    machine = machines.read(ROOT / "tests" / "fixtures" / "machines" / "linux_cpu.json")
    resolved = resolve(
        ROOT / "configs" / "training_config_demo.yaml",
        {
            "data.train_file": str(ROOT / "data" / "sample" / "train.jsonl"),
            "data.val_file": str(ROOT / "data" / "sample" / "val.jsonl"),
        },
    )
    assert not has_errors(check(resolved, judge(machine), machine, CURRENT))
