"""Each rule, seen to speak and seen to be silent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kit.checks import rules
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.machine import facts as machines
from kit.machine.platforms import judge
from kit.stacks.stack import Stack, stack_of

if TYPE_CHECKING:
    from pathlib import Path

    from kit.checks.context import CheckContext
    from kit.cli.findings import Finding

MACHINES = PROJECT_ROOT / "tests" / "fixtures" / "machines"
CURRENT = stack_of({"torch": "2.10.0", "transformers": "5.23.0", "bitsandbytes": "0.50.2", "wandb": "0.22.0"})
CURRENT_FLASH = stack_of({**CURRENT.versions, "flash-attn": "2.8.0"})
REFERENCE = stack_of({"torch": "2.1.0", "transformers": "4.36.0", "bitsandbytes": "0.41.0", "wandb": "0.16.0"})
REFERENCE_FLASH = stack_of({**REFERENCE.versions, "flash-attn": "2.3.3"})
NONE = stack_of({})
EVERY_N = "training.gradient_checkpointing_every_n_layers"
H100 = "training_config_h100"
M4 = "training_config_m4"
DEMO = "training_config_demo"
FLOAT32 = {"model.torch_dtype": "float32", "training.bf16": False, "quantization.bnb_4bit_compute_dtype": "float32"}


def _findings(
    config: str, machine_name: str, overrides: dict[str, Any] | None = None, stack: Stack = CURRENT
) -> list[Finding]:
    machine = machines.read(MACHINES / f"{machine_name}.json")
    resolved = resolve(PROJECT_ROOT / "configs" / f"{config}.yaml", overrides or {})
    return rules.check(resolved, judge(machine), machine, stack)


def _by_id(findings: list[Finding]) -> dict[str, str]:
    return {finding.id.removeprefix("config."): finding.severity for finding in findings}


CASES: list[tuple[str, str, dict[str, Any], Stack, str, str]] = [
    (H100, "h100_80gb", {EVERY_N: 2}, REFERENCE_FLASH, "levers.checkpointing", "error"),
    (
        H100,
        "h100_80gb",
        {EVERY_N: 2, "training.gradient_checkpointing": False},
        CURRENT,
        "levers.checkpointing",
        "warning",
    ),
    (H100, "h100_80gb", {"training.padding_free": True}, REFERENCE_FLASH, "levers.padding_free", "error"),
    (
        *(H100, "h100_80gb", {"training.padding_free": True, "model.attn_implementation": "sdpa"}, CURRENT),
        *("levers.padding_free", "warning"),
    ),
    (M4, "m4_32gb", {"training.torch_compile": True}, CURRENT, "levers.torch_compile", "error"),
    (H100, "h100_80gb", {"training.torch_compile": True}, REFERENCE_FLASH, "levers.torch_compile", "error"),
    (M4, "m4_32gb", {"training.use_liger_kernel": True}, CURRENT, "levers.liger_kernel", "error"),
    (H100, "h100_80gb", {"training.use_liger_kernel": True}, CURRENT, "levers.liger_kernel", "error"),
    (H100, "h100_80gb", {"model.attn_implementation": "flex_attention"}, REFERENCE_FLASH, "device.attention", "error"),
    (DEMO, "linux_cpu", {"model.attn_implementation": "flex_attention"}, CURRENT, "device.attention", "error"),
    (H100, "h100_80gb", {"training.fp16": True}, CURRENT, "precision.both", "error"),
    (H100, "h100_80gb", {"model.torch_dtype": "float16"}, CURRENT, "precision.torch_dtype", "error"),
    (H100, "h100_80gb", {"training.bf16": False, "training.fp16": True}, CURRENT, "precision.torch_dtype", "error"),
    (
        H100,
        "h100_80gb",
        {"quantization.bnb_4bit_compute_dtype": "float16"},
        CURRENT,
        "precision.compute_dtype",
        "error",
    ),
    (
        H100,
        "h100_80gb",
        {"quantization.bnb_4bit_compute_dtype": "float32"},
        CURRENT,
        "precision.compute_dtype",
        "warning",
    ),
    (
        H100,
        "h100_80gb",
        {"training.bf16": False, "training.fp16": True, "lora.adapter_dtype": "bfloat16"},
        CURRENT,
        "precision.adapter_dtype",
        "error",
    ),
    (M4, "m4_32gb", {"training.bf16": False, "training.fp16": True}, CURRENT, "precision.fp16", "error"),
    (DEMO, "linux_cpu", {"training.fp16": True}, CURRENT, "precision.fp16", "error"),
    (DEMO, "linux_cpu", {"training.bf16": True}, CURRENT, "precision.bf16", "warning"),
    (M4, "m4_macos_13", {}, CURRENT, "precision.bf16", "error"),
    (H100, "m4_32gb", {}, CURRENT, "device.optim", "error"),
    (M4, "m4_32gb", {"training.optim": "adamw_8bit"}, CURRENT, "device.optim", "error"),
    (DEMO, "linux_cpu", {"training.optim": "adamw_torch_fused"}, REFERENCE, "device.optim", "error"),
    (H100, "h100_80gb", {}, stack_of({"torch": "2", "transformers": "5"}), "device.optim", "error"),
    (M4, "m4_32gb", {"model.attn_implementation": "flash_attention_2"}, CURRENT, "device.flash_attention", "error"),
    (H100, "h100_80gb", {"model.attn_implementation": "flash_attention_2"}, CURRENT, "device.flash_attention", "error"),
    (
        H100,
        "h100_80gb",
        FLOAT32 | {"model.attn_implementation": "flash_attention_2"},
        CURRENT_FLASH,
        "device.flash_attention",
        "error",
    ),
    (
        H100,
        "linux_cpu",
        {"model.attn_implementation": "flash_attention_2"},
        CURRENT_FLASH,
        "device.flash_attention",
        "error",
    ),
    (H100, "h100_80gb", {"model.attn_implementation": "sdpa"}, REFERENCE, "device.attention", "error"),
    (H100, "h100_80gb", {}, REFERENCE, "device.eager", "error"),
    (H100, "h100_80gb", {"model.attn_implementation": "eager"}, CURRENT, "device.eager", "error"),
    (M4, "m4_32gb", {}, REFERENCE, "device.four_bit", "error"),
    (DEMO, "linux_cpu", {}, REFERENCE, "device.four_bit", "error"),
    (H100, "h100_80gb", {}, stack_of({"torch": "2", "transformers": "5"}), "device.four_bit", "error"),
    (M4, "m4_32gb", {}, stack_of({**CURRENT.versions, "bitsandbytes": "0.49.1"}), "device.four_bit", "error"),
    (H100, "h100_80gb", {"quantization.load_in_4bit": False}, CURRENT, "device.idle_quantization", "warning"),
    (H100, "h100_80gb", {"training.torch_empty_cache_steps": 5}, REFERENCE_FLASH, "device.empty_cache", "error"),
    (DEMO, "linux_cpu", {"training.torch_empty_cache_steps": 5}, CURRENT, "device.no_effect", "warning"),
    (H100, "h100_80gb", {"lora.lora_alpha": 8}, CURRENT, "adapter.scaling", "warning"),
    (H100, "h100_80gb", {"lora.lora_alpha": 65}, CURRENT, "adapter.scaling", "warning"),
    (H100, "h100_80gb", {"lora.lora_dropout": 0.3}, CURRENT, "adapter.dropout", "warning"),
    (H100, "h100_80gb", {"training.learning_rate": 2e-3}, CURRENT, "adapter.learning_rate", "warning"),
    (H100, "h100_80gb", {"training.learning_rate": 2e-6}, CURRENT, "adapter.learning_rate", "warning"),
    (DEMO, "linux_cpu", {"training.learning_rate": 0.1}, CURRENT, "adapter.learning_rate", "warning"),
    (H100, "h100_80gb", {"training.save_steps": 250}, CURRENT, "schedule.save_steps", "warning"),
    (H100, "h100_80gb", {"training.max_steps": 50}, CURRENT, "schedule.eval_steps", "warning"),
    (H100, "h100_80gb", {"training.max_steps": 500}, CURRENT, "schedule.length", "ok"),
    (H100, "h100_80gb", {"training.lr_scheduler_type": "constant"}, CURRENT, "schedule.warmup", "warning"),
    (H100, "h100_80gb", {"training.warmup_ratio": 0.5}, CURRENT, "schedule.warmup", "warning"),
    (H100, "h100_80gb", {"wandb.project": None}, CURRENT, "wandb.project", "error"),
    (H100, "h100_80gb", {"wandb.mode": "disabled"}, CURRENT, "wandb.mode", "warning"),
    (H100, "h100_80gb", {"training.report_to": "none"}, CURRENT, "wandb.idle", "warning"),
    (H100, "h100_80gb", {}, stack_of({"torch": "2", "transformers": "5"}), "wandb.missing", "error"),
    (H100, "h100_80gb", {"training.max_seq_length": 65536}, CURRENT, "memory.positions", "error"),
    (H100, "h100_80gb", {"training.gradient_checkpointing": False}, CURRENT, "memory", "error"),
    (H100, "h100_busy", {"training.per_device_train_batch_size": 16}, CURRENT, "memory", "error"),
    (H100, "h100_80gb", {"training.per_device_train_batch_size": 30}, CURRENT, "memory", "warning"),
    (H100, "h100_80gb", {}, CURRENT, "memory", "ok"),
    (M4, "m4_16gb", {"training.gradient_checkpointing": False}, CURRENT, "memory", "error"),
    (H100, "h100_80gb", {"model.model_name_or_path": "someone/else"}, CURRENT, "memory", "skipped"),
    (H100, "h100_80gb", {}, NONE, "stack", "skipped"),
]


@pytest.mark.parametrize(
    ("config", "machine_name", "overrides", "stack", "expected"),
    [(*case[:4], case[4:]) for case in CASES],
    ids=[f"{index}-{case[4]}" for index, case in enumerate(CASES)],
)
def test_a_rule_speaks_where_it_must(
    config: str, machine_name: str, overrides: dict[str, Any], stack: Stack, expected: tuple[str, str]
) -> None:
    findings = _findings(config, machine_name, overrides, stack)
    rule, severity = expected
    assert (rule, severity) in _by_id(findings).items()
    for finding in findings:
        if finding.id == f"config.{rule}" and severity in {"warning", "error"}:
            assert finding.fix
            # the place of a key that was overridden is the command line, of any other its line in the file
            assert finding.where == "command line" or f"{config}.yaml:" in finding.where


@pytest.mark.parametrize("stack", [CURRENT, CURRENT_FLASH, REFERENCE_FLASH, NONE], ids=["current", "fa", "ref", "none"])
def test_the_h100_config_needs_no_word_on_an_h100(stack: Stack) -> None:
    spoken = {
        name for name, severity in _by_id(_findings(H100, "h100_80gb", stack=stack)).items() if severity == "error"
    }
    assert spoken <= {"data.missing"}


def test_bfloat16_is_refused_on_a_gpu_without_it_and_the_fix_works() -> None:
    machine = machines.read(MACHINES / "rtx_4090.json")
    old = replace(machine.nvidia.gpus[0], compute_capability=(7, 5), name="Tesla T4", memory_total_bytes=16 * 10**9)
    machine = replace(machine, nvidia=replace(machine.nvidia, gpus=(old,)))
    path = PROJECT_ROOT / "configs" / "training_config.yaml"
    refused = [
        finding
        for finding in rules.check(resolve(path), judge(machine), machine, CURRENT)
        if finding.id == "config.precision.bf16"
    ]
    assert refused[0].severity == "error"
    assert "Tesla T4 has 7.5" in refused[0].message
    mended = rules.check(resolve(path, refused[0].fix.split()), judge(machine), machine, CURRENT)
    assert not [finding for finding in mended if finding.id.startswith("config.precision.")]


@pytest.mark.parametrize(
    "overrides",
    [
        {"training.per_device_train_batch_size": 64},
        {"training.gradient_checkpointing": False},
        {"training.max_seq_length": 32768, "training.gradient_checkpointing": False},
    ],
)
def test_the_fix_for_memory_fits_and_keeps_the_effective_batch(overrides: dict[str, Any]) -> None:
    machine = machines.read(MACHINES / "h100_80gb.json")
    path = PROJECT_ROOT / "configs" / f"{H100}.yaml"
    before = resolve(path, overrides)
    (finding,) = (item for item in rules.check(before, judge(machine), machine, CURRENT) if item.id == "config.memory")
    pairs = dict(pair.split("=") for pair in finding.fix.split())
    after = resolve(path, [*(f"{key}={str(value).lower()}" for key, value in overrides.items()), *finding.fix.split()])
    assert pairs
    assert after.settings.effective_batch_size == before.settings.effective_batch_size
    assert _by_id(rules.check(after, judge(machine), machine, CURRENT))["memory"] == "ok"


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda _: None, "data.missing"),
        (lambda path: path.touch(), "data.empty"),
        (lambda path: path.mkdir(), "data.directory"),
    ],
    ids=["missing", "empty", "directory"],
)
def test_a_data_file_that_cannot_be_used_is_refused(tmp_path: Path, make: Any, rule: str) -> None:
    path = tmp_path / "rows.jsonl"
    make(path)
    findings = _findings(DEMO, "linux_cpu", {"data.train_file": str(path)})
    (finding,) = (item for item in findings if item.id == f"config.{rule}")
    assert finding.message.startswith(f"data.train_file: {path} ")
    assert finding.where == "command line"


def test_measuring_on_the_training_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n", encoding="utf-8")
    (tmp_path / "link.jsonl").symlink_to(path)
    files = {"data.train_file": str(path), "data.val_file": str(tmp_path / "link.jsonl")}
    assert _by_id(_findings(DEMO, "linux_cpu", files))["data.same_file"] == "error"


def test_the_duration_is_an_upper_bound_from_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n" * 15_000, encoding="utf-8")
    findings = _findings(M4, "m4_32gb", {"data.train_file": str(path)})
    (finding,) = (item for item in findings if item.id == "config.duration")
    assert finding.message.startswith("at most 92.2 M tokens")
    assert "12 days to 13 days" in finding.message


@pytest.mark.parametrize(
    ("overrides", "stack"),
    [
        ({EVERY_N: 2}, CURRENT),
        ({"training.padding_free": True}, CURRENT_FLASH),
        ({"training.padding_free": True}, CURRENT),
        ({"training.padding_free": True, "model.attn_implementation": "flex_attention"}, CURRENT),
        ({"training.torch_compile": True}, CURRENT),
        ({"training.use_liger_kernel": True}, stack_of({**CURRENT.versions, "liger-kernel": "0.8.5"})),
    ],
)
def test_a_lever_is_let_through_where_it_works(overrides: dict[str, Any], stack: Stack) -> None:
    found = _by_id(_findings(H100, "h100_80gb", overrides, stack))
    assert not [name for name in found if name.startswith(("levers.", "device.attention", "device.no_effect"))]


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "~/nowhere", "models/mine", "a/b/c"])
def test_a_model_path_that_looks_local_and_is_not_there_is_refused(name: str) -> None:
    assert _by_id(_findings(H100, "h100_80gb", {"model.model_name_or_path": name}))["model.missing"] == "error"


def test_a_hub_name_is_left_to_the_environment_checks() -> None:
    assert not [name for name in _by_id(_findings(H100, "h100_80gb")) if name.startswith("model.")]


def test_the_demos_base_is_not_demanded_before_it_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    found = _by_id(_findings(DEMO, "linux_cpu"))
    assert found["model.demo"] == "skipped"


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    found = _by_id(_findings(H100, "h100_80gb", {"model.model_name_or_path": str(tmp_path)}))
    assert found["model.incomplete"] == "error"


@pytest.mark.parametrize(("revision", "expected"), [("abc", "warning"), (None, None)])
def test_a_revision_of_a_directory_is_told(tmp_path: Path, revision: str | None, expected: str | None) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    changes = {"model.model_name_or_path": str(tmp_path), "model.revision": revision}
    assert _by_id(_findings(H100, "h100_80gb", changes)).get("model.revision") == expected


def test_a_rule_that_crashes_becomes_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: CheckContext) -> list[Finding]:
        raise ZeroDivisionError(run.platform)

    monkeypatch.setattr(rules, "RULES", (broken,))
    assert _by_id(_findings(H100, "h100_80gb"))["broken.crashed"] == "error"
