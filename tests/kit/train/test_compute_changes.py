"""What computes the rest of a run otherwise than its beginning is said and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit.run_directory.receipt import Receipt
from kit.train.compute_changes import note_changes

CPU = {"device": "cpu", "threads": 2, "cpu_capability": "AVX2", "variables": "none", "cuda": None}
GPU = {**CPU, "device": "NVIDIA H100 80GB HBM3", "cuda": "12.8"}


@pytest.mark.parametrize(
    ("platform", "then", "now", "told"),
    [
        ("cpu", CPU, {"threads": 4}, ["threads is 4, was 2", "OMP_NUM_THREADS=2"]),
        ("cpu", CPU, {"cpu_capability": "AVX512"}, ["cpu capability is AVX512, was AVX2"]),
        ("cpu", CPU, {"variables": "MKL_CBWR=COMPATIBLE"}, ["variables is MKL_CBWR=COMPATIBLE, was none"]),
        ("h100", GPU, {"variables": "NVIDIA_TF32_OVERRIDE=1"}, ["variables is NVIDIA_TF32_OVERRIDE=1, was none"]),
        ("h100", GPU, {"cuda": "13.0", "threads": 4}, ["cuda is 13.0, was 12.8"]),
        ("h100", GPU, {"threads": 4, "cpu_capability": "AVX512"}, []),
        ("cpu", CPU, {}, []),
        ("cpu", {"device": "cpu"}, {"threads": 4}, []),  # an earlier version did not write it down
        ("cpu", None, {"threads": 4}, []),
    ],
)
def test_what_decides_the_bits_is_compared_and_each_change_is_kept(  # noqa: PLR0913, PLR0917
    tmp_path: Path, capsys: pytest.CaptureFixture[str], platform: str, then: Any, now: dict[str, Any], told: list[str]
) -> None:
    receipt = Receipt(tmp_path)
    note_changes(receipt, then, {**(GPU if platform == "h100" else CPU), **now}, platform, 4)
    said = capsys.readouterr().err
    assert all(text in said for text in told)
    assert bool(said) is bool(told)
    changes = receipt.facts.get("compute_changes", [])
    assert [(each["step"], each["is"]) for each in changes] == [(4, value) for value in now.values()][: bool(told)]
