"""A shipped configuration is complete in itself; what a new key lacks there, the gate says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from tools.shipped_configs import check_configs

if TYPE_CHECKING:
    from pathlib import Path

CONFIGS = PROJECT_ROOT / "configs"


def _check(folder: Path, old: str, new: str) -> list[tuple[str, str]]:
    text = (CONFIGS / "training_config_demo.yaml").read_text(encoding="utf-8")
    assert text.count(old) == 1
    (folder / "one.yaml").write_text(text.replace(old, new), encoding="utf-8")
    return [(finding.message, finding.fix) for finding in check_configs(folder)]


def test_the_shipped_configs_name_every_key_in_the_order_of_declaration() -> None:
    assert [(finding.severity, finding.message) for finding in check_configs(CONFIGS) if finding.severity != "ok"] == []
    assert len(check_configs(CONFIGS)) == 4


@pytest.mark.parametrize(
    ("old", "told", "line"),
    [
        ("  bf16:", "does not name training.bf16", "add `bf16: true` below `max_grad_norm`, with a comment above"),
        ("  project:", "does not name wandb.project", "add `project: null` first under `wandb:`, with"),
    ],
)
def test_a_key_that_one_lacks_is_named_with_the_line_to_add(tmp_path: Path, old: str, told: str, line: str) -> None:
    ((message, fix),) = _check(tmp_path, old, f"  # {old.strip()}")
    assert message == told
    assert fix.startswith(line)


def test_a_key_out_of_its_place_is_named(tmp_path: Path) -> None:
    precision = "  bf16: false\n  # See bf16.\n  fp16: false\n"
    ((message, _),) = _check(tmp_path, precision, "  fp16: false\n  bf16: false\n")
    assert message == "names training.fp16 where training.bf16 belongs"
