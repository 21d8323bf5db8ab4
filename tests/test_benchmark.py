"""The benchmark runs from end to end at a CPU's scale, so that it works on the day there is a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kit.interpreter import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path


def _benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROJECT_ROOT / "scripts/benchmark.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.slow
def test_a_variant_and_the_baseline_are_measured_and_written(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the libraries: make setup")
    done = _benchmark("--scale", "small", "--variants", "rows end to end", "--base", str(tmp_path / "base"))
    assert done.returncode == 0, done.stderr
    written = json.loads((PROJECT_ROOT / "outputs/bench/gpu-small.json").read_text(encoding="utf-8"))
    (row,) = written["rows"]
    assert row["variant"] == "rows end to end"
    assert row["tokens_per_second"] > 0
    assert 0 < row["share_of_ceiling"] < 1
    assert f"{row['tokens_per_second']:,.0f}" in done.stdout
    assert (PROJECT_ROOT / "outputs/bench/gpu-small.png").stat().st_size > 1000


@pytest.mark.slow
def test_trls_own_defaults_still_train(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the libraries: make setup")
    from kit.bench.one_row import measure
    from kit.bench.random_base import write_random_base
    from kit.bench.variants import BASELINE, SCALES, VARIANTS

    scale = SCALES["small"]
    base = write_random_base(scale.shape, tmp_path / "base", dtype=torch.float32, device="cpu")
    plain = next(variant for variant in VARIANTS if variant.name == BASELINE)
    assert measure(plain, "ragged", scale, base, "cpu")["tokens_per_second"] > 0


def test_the_full_scale_is_refused_without_a_gpu() -> None:
    done = _benchmark("--scale", "7b")
    if done.returncode == 0:
        pytest.skip("there is a GPU here")
    assert done.returncode == 2
    assert "needs an NVIDIA GPU" in done.stderr
