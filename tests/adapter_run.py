"""A run that nobody trained: a real base, a real adapter with random weights, a receipt. Seconds instead of minutes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kit.cli.interpreter import PROJECT_ROOT
from kit.cli.quiet_libraries import quiet_imports
from kit.config.resolve import resolve
from small_run import CONFIG, overrides

if TYPE_CHECKING:
    from pathlib import Path

    from kit.config.settings import Settings


def run_settings(base: Path, folder: Path, **changes: object) -> Settings:
    """The demo's configuration for a run on ``base`` that writes into ``folder``."""
    return resolve(CONFIG, overrides(base, folder, **changes)).settings


def make_run(base: Path, folder: Path, *, val_rows: int = 4, **changes: object) -> Path:
    """Write a finished run whose adapter makes a difference, with a few validation rows; return its folder."""
    with quiet_imports():
        import torch

        from kit.modeling.model import attach_adapter, load_base_model, save_adapter

    folder.mkdir(parents=True, exist_ok=True)
    val = folder / "val.jsonl"
    lines = (PROJECT_ROOT / "data/sample/val.jsonl").read_text(encoding="utf-8").splitlines()[:val_rows]
    val.write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = run_settings(base, folder, data__val_file=val, **changes)
    model = attach_adapter(load_base_model(settings, "cpu"), settings)
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.05
    save_adapter(model, folder / "adapter")
    receipt = {
        "schema_version": 1,
        "run_name": settings.training.run_name,
        "state": "finished",
        "config": settings.as_mapping(),
        "eval_loss": None,
        "data": [],
    }
    (folder / "run.json").write_text(json.dumps(receipt), encoding="utf-8")
    return folder
