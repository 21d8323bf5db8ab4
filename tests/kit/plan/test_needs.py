"""What a run writes and loads, and what detection says of the shipped configurations, is the plan's arithmetic."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.machine.planned import planned
from kit.machine.platforms import PLATFORMS
from kit.model.shape import MISTRAL_7B
from kit.plan import needs
from kit.plan.measured import rates_on
from kit.plan.needs import checkpoint_bytes, output_bytes, shipped


def _settings(**changes: Any) -> Any:
    overrides = {key.replace("__", "."): value for key, value in changes.items()}
    return resolve(PROJECT_ROOT / "configs" / "training_config_h100.yaml", overrides).settings


@pytest.mark.parametrize(
    ("changes", "bytes_a_weight"),
    [
        ({}, 4 + 8),
        ({"training__optim": "adamw_torch", "lora__adapter_dtype": "bfloat16"}, 2 + 4),
        ({"training__optim": "paged_adamw_8bit"}, 4 + 2 * (1 + 4 / 256)),
        ({"training__optim": "adafactor"}, 4 + 4 / 16),
        ({"training__optim": "sgd"}, 4),
    ],
)
def test_a_checkpoint_holds_the_adapter_and_what_its_optimizer_keeps(
    changes: dict[str, Any], bytes_a_weight: float
) -> None:
    adapter = MISTRAL_7B.lora_parameters(16, _settings().lora.target_modules)
    assert checkpoint_bytes(MISTRAL_7B, _settings(**changes)) == pytest.approx(adapter * bytes_a_weight, abs=5e6)


def test_a_new_checkpoint_is_written_before_the_oldest_goes() -> None:
    settings = _settings(training__save_total_limit=2)
    least, most = output_bytes(MISTRAL_7B, settings)
    assert most - least == 2 * checkpoint_bytes(MISTRAL_7B, settings)


def test_what_detection_says_of_the_shipped_configurations_is_the_plans() -> None:
    """It runs where nothing is installed, and reads what `make docs` wrote; the gate compares the two as well."""
    assert shipped() == {platform: asdict(planned(platform)) for platform in PLATFORMS}


def test_another_plan_makes_what_detection_says_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "_LARGEST_FILE", 1.0)
    assert shipped()["h100"]["loading_bytes"] > planned("h100").loading_bytes


def test_the_demos_shape_is_the_one_it_makes() -> None:
    base = pytest.importorskip("kit.demo.base", reason="needs the libraries: make setup")
    said = {key: value for key, value in base.SHAPE.items() if hasattr(needs._DEMO, key)}
    assert said == {key: getattr(needs._DEMO, key) for key in said}


def test_all_that_an_h100_was_measured_at_lies_in_the_range_that_detection_states() -> None:
    stated = planned("h100")
    rates = rates_on("NVIDIA H100 80GB HBM3")
    assert len(rates) >= 9
    assert stated.slow_tokens_per_second <= min(rate.tokens_per_second for rate in rates)
    assert stated.fast_tokens_per_second * 1.05 >= max(rate.tokens_per_second for rate in rates)
