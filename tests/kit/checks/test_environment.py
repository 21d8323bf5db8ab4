"""Disk and memory of an environment are held against what the plan says that a run writes and loads."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kit.checks.environment import check_space
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.environment import facts
from kit.machine.planned import planned
from kit.model.families import completed
from kit.model.shape import MISTRAL_7B, ModelShape, shape_in
from kit.plan.needs import loading_bytes

if TYPE_CHECKING:
    from kit.cli.findings import Finding
    from kit.config.settings import Settings
    from kit.environment.facts import Environment

GB = 10**9
LLAMA = {"model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336}
LLAMA |= {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}


def _environment(memory: int = 64 * GB, **changes: int) -> Environment:
    good = facts.read(PROJECT_ROOT / "tests/fixtures/environments/h100_current_good.json")
    assert good.model is not None
    away = replace(good, model=replace(good.model, is_cached=False, kind="hub"), cache_disk_free_bytes=20 * GB)
    return replace(away, machine=replace(away.machine, memory_total_bytes=memory), **changes)


def _settings(*overrides: str) -> Settings:
    return resolve(PROJECT_ROOT / "configs" / "training_config_h100.yaml", overrides).settings


def _found(environment: Environment, shape: ModelShape | None, platform: str = "h100") -> dict[str, Finding]:
    return {finding.id: finding for finding in check_space(environment, _settings(), platform, shape)}


def test_a_models_size_is_its_shapes_and_not_its_names() -> None:
    """A name that holds 7b asked for 14.5 GB of disk; one of 8 billion parameters that does not for none at all."""
    assert _found(_environment(), None)["environment.cache_disk"].severity == "skipped"
    found = _found(_environment(12 * GB), shape_in(completed({**LLAMA, "max_position_embeddings": 131_072})))
    assert "16.1 GB needed" in found["environment.cache_disk"].message
    assert "loading a model of 8.0 B parameters needs 12.3 GB" in found["environment.memory"].message


@pytest.mark.parametrize(("free", "severity"), [(0.5, "error"), (1.0, "warning"), (3.0, "ok")])
def test_the_next_checkpoint_must_fit_and_all_that_are_kept_should(free: float, severity: str) -> None:
    found = _found(_environment(output_disk_free_bytes=int(free * GB)), MISTRAL_7B)["environment.output_disk"]
    assert found.severity == severity
    assert "0.68 GB needed, up to 2.2 GB by the end" in found.message


def test_a_run_of_an_unknown_model_writes_a_gigabyte_at_least() -> None:
    found = _found(_environment(output_disk_free_bytes=GB - 1), None)
    assert found["environment.output_disk"].severity == "error"


def test_what_passes_through_memory_is_what_detection_says_and_on_a_mac_it_stands_beside_the_run() -> None:
    loading, run = planned("h100").loading_bytes, planned("m4").device_bytes
    assert loading == loading_bytes(MISTRAL_7B)
    for platform, needed in (("h100", loading), ("cuda", loading), ("m4", loading + run)):
        for memory, severity in ((needed - 1, "warning"), (needed, "ok")):
            assert _found(_environment(memory), MISTRAL_7B, platform)["environment.memory"].severity == severity
