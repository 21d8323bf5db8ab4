"""Each recorded environment leads to its findings, and to no other warning or error; each problem names its fix."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kit.checks.environment import environment_findings
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.environment import facts
from kit.environment.facts import Environment, Lock, WandbAccess
from kit.environment.version_checks import check_lock

if TYPE_CHECKING:
    from pathlib import Path

    from kit.cli.findings import Finding
    from kit.config.settings import Settings

FIXTURES = PROJECT_ROOT / "tests" / "fixtures" / "environments"
PATHS = sorted(FIXTURES.rglob("*.json"))


def environment(name: str) -> Environment:
    return facts.read(FIXTURES / f"{name}.json")


def settings(*overrides: str) -> Settings:
    model = "model.model_name_or_path=mistralai/Mistral-7B-v0.1"
    return resolve(PROJECT_ROOT / "configs" / "training_config_demo.yaml", [model, *overrides]).settings


def problems(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity in {"warning", "error"}]


def by_id(findings: list[Finding], identity: str) -> Finding:
    return next(finding for finding in findings if finding.id == identity)


def test_every_fixture_is_found() -> None:
    assert len(PATHS) == 34


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_an_environment_has_the_problems_its_record_expects_and_no_other(path: Path) -> None:
    expected: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["expect"]
    found = problems(environment_findings(facts.read(path)))
    assert sorted((finding.id, finding.severity) for finding in found) == sorted(
        (entry["id"], entry["severity"]) for entry in expected
    )
    for entry in expected:
        assert any(
            finding.id == entry["id"] and entry["says"] in finding.message and entry["fix"] in finding.fix
            for finding in found
        ), entry


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_problem_has_a_fix(path: Path) -> None:
    assert [finding for finding in problems(environment_findings(facts.read(path))) if not finding.fix] == []


def test_no_check_crashes_on_the_least_facts() -> None:
    bare = Environment(machine=environment("h100_reference_good").machine)
    for platform in ("h100", "cuda", "m4", "cpu"):
        found = environment_findings(bare, settings(), platform)
        assert [finding.id for finding in found if finding.id.endswith(".crashed")] == []


def test_a_check_that_crashes_is_a_finding() -> None:
    broken = replace(environment("h100_reference_good"), installed={"torch": 2})  # type: ignore[dict-item]
    assert any(finding.id.endswith(".crashed") for finding in environment_findings(broken, None, "h100"))


def test_wandb_online_without_a_login_is_an_error_before_the_run() -> None:
    logged_out = replace(environment("m4_good"), wandb=WandbAccess("none"))
    found = environment_findings(logged_out, settings("training.report_to=wandb", "wandb.mode=online"))
    finding = by_id(found, "environment.wandb_login")
    assert finding.severity == "error"
    assert finding.fix == "`wandb login`, or wandb.mode=offline"


@pytest.mark.parametrize(
    ("access", "overrides"),
    [
        (WandbAccess("netrc"), ("training.report_to=wandb", "wandb.mode=online")),
        (WandbAccess("environment"), ("training.report_to=wandb", "wandb.mode=online")),
        (WandbAccess("none", "offline"), ("training.report_to=wandb", "wandb.mode=online")),
        (WandbAccess("none"), ("training.report_to=wandb", "wandb.mode=offline")),
        (WandbAccess("none"), ("training.report_to=none",)),
    ],
)
def test_wandb_is_fine_where_no_prompt_can_come(access: WandbAccess, overrides: tuple[str, ...]) -> None:
    found = environment_findings(replace(environment("m4_good"), wandb=access), settings(*overrides))
    assert by_id(found, "environment.wandb").severity == "ok"


def test_wandb_asked_for_and_not_installed_is_an_error() -> None:
    good = environment("m4_good")
    without = {name: version for name, version in good.installed.items() if name != "wandb"}
    found = environment_findings(replace(good, installed=without), settings("training.report_to=wandb"))
    assert "training.report_to=none" in by_id(found, "environment.wandb_missing").fix


def test_four_bit_on_a_cpu_with_the_reference_stack_is_an_error() -> None:
    found = environment_findings(environment("h100_reference_good"), settings(), "cpu")
    assert "quantization.load_in_4bit=false" in by_id(found, "environment.four_bit").fix


def test_bf16_on_a_device_without_it_is_an_error_naming_the_overrides() -> None:
    good = environment("h100_current_good")
    stages = tuple(
        replace(stage, facts={**stage.facts, "bf16_supported": False}) if stage.name == "device facts" else stage
        for stage in good.probe.stages
    )
    old = replace(good, probe=replace(good.probe, stages=stages))
    found = environment_findings(old, settings("training.bf16=true"))
    assert "training.bf16=false training.fp16=true" in by_id(found, "environment.bf16").fix


def test_flash_attention_asked_for_by_name_and_missing_is_an_error() -> None:
    found = environment_findings(
        environment("h100_current_good"), settings("model.attn_implementation=flash_attention_2")
    )
    finding = by_id(found, "environment.flash_attention")
    assert finding.severity == "error"
    assert "model.attn_implementation=auto" in finding.fix


@pytest.mark.parametrize(
    ("changes", "identity"),
    [
        ({"is_cached": False, "hub_answer": "gated"}, "environment.model_gated"),
        ({"is_cached": False, "hub_answer": "not_found"}, "environment.model_not_found"),
        ({"is_cached": False, "hub_answer": "unreachable"}, "environment.model_unreachable"),
        ({"is_cached": False, "is_offline": True}, "environment.model_offline"),
        ({"kind": "folder", "missing_files": ("config.json",)}, "environment.model_incomplete"),
    ],
)
def test_a_model_out_of_reach_warns_without_a_configuration_and_stops_with_one(
    changes: dict[str, Any], identity: str
) -> None:
    good = environment("h100_current_good")
    assert good.model is not None
    away = replace(good, model=replace(good.model, **changes))
    assert by_id(environment_findings(away), identity).severity == "warning"
    assert by_id(environment_findings(away, settings()), identity).severity == "error"


def test_a_model_complete_in_the_cache_needs_neither_network_nor_download_space() -> None:
    good = replace(environment("h100_current_good"), cache_disk_free_bytes=0)
    found = environment_findings(good)
    assert by_id(found, "environment.model").severity == "ok"
    assert "environment.cache_disk" not in {finding.id for finding in found}


def test_a_local_build_of_a_locked_version_is_no_drift() -> None:
    good = replace(
        environment("h100_reference_good"),
        installed={"torch": "2.1.0+cu121"},
        lock=Lock("lock.txt", {"torch": "2.1.0"}),
    )
    assert [finding.severity for finding in check_lock(good)] == ["ok"]


def test_python_other_than_the_locks_is_said() -> None:
    good = environment("h100_current_good")
    newer = replace(good, machine=replace(good.machine, python_version="3.12.4"))
    older = replace(good, machine=replace(good.machine, python_version="3.10.9"))
    assert by_id(environment_findings(newer), "environment.python").severity == "warning"
    assert by_id(environment_findings(older), "environment.python").severity == "error"


def test_a_wholly_different_environment_is_told_in_one_sentence_of_some_length() -> None:
    good = environment("h100_reference_good")
    found = check_lock(replace(good, installed={"torch": "2.1.0"}))
    rest = found[-1].message
    assert rest.count("missing (locked") == 6
    assert good.lock is not None
    told = len([finding for finding in found[:-1] if "is not installed" in finding.message])
    assert rest.endswith(f" and {len(good.lock.versions) - 1 - told - 6} more")
