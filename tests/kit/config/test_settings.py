from __future__ import annotations

from pathlib import Path

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve

DEMO = PROJECT_ROOT / "configs" / "training_config_demo.yaml"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.run_name=first-try", Path("outputs/first-try")),
        ("training.output_dir=/elsewhere/run", Path("/elsewhere/run")),
        ("training.output_dir=~/run", Path("~/run").expanduser()),
    ],
)
def test_a_run_writes_where_it_is_told_to(override: str, expected: Path) -> None:
    assert resolve(DEMO, [override]).settings.run_directory == expected


def test_the_effective_batch_is_micro_batch_times_accumulation() -> None:
    changes = {"training.per_device_train_batch_size": 3, "training.gradient_accumulation_steps": 5}
    assert resolve(DEMO, changes).settings.effective_batch_size == 15
