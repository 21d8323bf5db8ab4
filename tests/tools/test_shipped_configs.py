"""A shipped configuration is complete in itself; what a new key lacks there, the gate says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.config.yaml_writer import annotated_yaml
from tools.shipped_configs import check_configs

if TYPE_CHECKING:
    from pathlib import Path

CONFIGS = PROJECT_ROOT / "configs"


def _check(folder: Path, old: str, new: str) -> list[tuple[str, str]]:
    """Check a complete configuration in which a line of one key is written otherwise."""
    complete = resolve(CONFIGS / "training_config_demo.yaml")
    text = annotated_yaml(complete.values, dict.fromkeys(complete.origins, "-"))
    (line,) = [line for line in text.splitlines(keepends=True) if line.startswith(f"  {old}:")]
    (folder / "one.yaml").write_text(text.replace(line, "").replace("  fp16:", f"{new}  fp16:"), encoding="utf-8")
    return [(finding.message, finding.fix) for finding in check_configs(folder)]


def test_the_shipped_configs_name_every_key_in_the_order_of_declaration() -> None:
    assert [(finding.severity, finding.message) for finding in check_configs(CONFIGS) if finding.severity != "ok"] == []
    assert len(check_configs(CONFIGS)) == 4


@pytest.mark.parametrize(
    ("key", "told", "line"),
    [
        ("bf16", "does not name training.bf16", "add `bf16: true` below `"),
        ("project", "does not name wandb.project", "add `project: null` first under `wandb:`, with"),
    ],
)
def test_a_key_that_one_lacks_is_named_with_the_line_to_add(tmp_path: Path, key: str, told: str, line: str) -> None:
    ((message, fix),) = _check(tmp_path, key, "")
    assert message == told
    assert fix.startswith(line)


def test_a_key_out_of_its_place_is_named(tmp_path: Path) -> None:
    ((message, _),) = _check(tmp_path, "seed", "  seed: 42\n")
    assert message == "names training.max_seq_length where training.seed belongs"
