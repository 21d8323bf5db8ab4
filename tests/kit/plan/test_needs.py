"""What a run writes is the arithmetic of its adapter and its optimizer."""

from __future__ import annotations

from typing import Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.model.shape import MISTRAL_7B
from kit.plan.needs import checkpoint_bytes, output_bytes


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
