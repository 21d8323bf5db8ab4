"""Small real runs for tests: the demo's configuration, shape and rows, cut down to seconds."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from kit.cli.interpreter import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = PROJECT_ROOT / "configs" / "training_config_demo.yaml"


def overrides(base: Path, output: Path, **changes: object) -> list[str]:
    """Overrides of the demo's configuration for a run on a base made for the test; dots are written ``__``."""
    values: dict[str, object] = {
        "model__model_name_or_path": base,
        "data__train_file": PROJECT_ROOT / "data/sample/train.jsonl",
        "data__val_file": PROJECT_ROOT / "data/sample/val.jsonl",
        "training__output_dir": output,
        "training__max_steps": 2,
        "training__per_device_train_batch_size": 4,
        "training__eval_steps": 100,
        "training__save_steps": 100,
        "training__logging_steps": 1,
        **changes,
    }
    return [f"{key.replace('__', '.')}={_yaml(value)}" for key, value in values.items()]


def _yaml(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool) or value is None else str(value)


def train_command(base: Path, output: Path, *, python: str, **changes: object) -> list[str]:
    """The command line of a small run under one of the environments' Pythons."""
    return [python, str(PROJECT_ROOT / "scripts/kit"), "train", str(CONFIG), *overrides(base, output, **changes)]


def run_training(base: Path, output: Path, *, python: str, **changes: object) -> subprocess.CompletedProcess[str]:
    """Train in a process of its own, offline."""
    return subprocess.run(
        train_command(base, output, python=python, **changes),
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT_ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        timeout=600,
    )


def read_receipt(output: Path) -> dict[str, object]:
    """Read a run's receipt."""
    return dict(json.loads((output / "run.json").read_text(encoding="utf-8")))


def read_metrics(output: Path) -> list[dict[str, float]]:
    """Read a run's metrics, a line each."""
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def losses(output: Path) -> list[float]:
    """Read a run's training losses, step by step."""
    return [line["loss"] for line in read_metrics(output) if "loss" in line]


def deviations(receipt: dict[str, object], lock: Path) -> dict[str, tuple[str, str | None]]:
    """Compare what a run was trained with against a lock: locked and installed version of each package that differs."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    packages = receipt["packages"]
    assert isinstance(packages, dict)
    installed = {canonicalize_name(name): version.split("+")[0] for name, version in packages.items()}
    return {
        name: (version, installed.get(canonicalize_name(name)))
        for name, version in pins
        if installed.get(canonicalize_name(name)) != version
    }
