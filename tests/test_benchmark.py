"""The benchmark runs from end to end at a CPU's scale, so that it works on the day there is a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import benchmark
from kit.bench.bottleneck import Kernel, summarise
from kit.bench.peers import PEERS
from kit.bench.variants import BASE, CEILING
from kit.interpreter import PROJECT_ROOT
from kit.machine.platforms import judge
from kit.machine.probe import probe
from kit.stack import Stack

if TYPE_CHECKING:
    from pathlib import Path

    from kit.bench.peers import Peer


def _benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROJECT_ROOT / "scripts/benchmark.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.slow
def test_a_variant_and_the_baseline_are_measured_and_written(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the libraries: make setup")
    done = _benchmark("--scale", "small", "--variants", "rows end to end", "--base", str(tmp_path / "base"))
    assert done.returncode == 0, done.stderr
    written = json.loads((PROJECT_ROOT / "outputs/bench/gpu-small.json").read_text(encoding="utf-8"))
    row, *peers = written["rows"]
    assert {(peer["variant"], peer["failed"]) for peer in peers} == {
        (peer.name, "needs an NVIDIA GPU and the 7b scale") for peer in PEERS
    }
    assert row["variant"] == "rows end to end"
    assert row["tokens_per_second"] > 0
    assert 0 < row["share_of_ceiling"] < 1
    assert f"{row['tokens_per_second']:,.0f}" in done.stdout
    assert (PROJECT_ROOT / "outputs/bench/gpu-small.png").stat().st_size > 1000


@pytest.mark.slow
def test_trls_own_defaults_still_train_and_a_variant_is_profiled(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the libraries: make setup")
    from kit.bench.one_row import measure, profile
    from kit.bench.random_base import write_random_base
    from kit.bench.variants import BASELINE, KIT, SCALES, VARIANTS

    scale = SCALES["small"]
    base = write_random_base(scale.shape, tmp_path / "base", dtype=torch.float32, device="cpu")
    plain = next(variant for variant in VARIANTS if variant.name == BASELINE)
    assert measure(plain, "ragged", scale, base, "cpu")["tokens_per_second"] > 0
    kit = next(variant for variant in VARIANTS if variant.name == KIT)
    profiled = profile(kit, "full", scale, base, "cpu")
    assert (profiled["variant"], profiled["steps"]) == (KIT, 3)
    assert sum(profiled["groups"].values()) == pytest.approx(1.0)
    assert {"matmul", "dequantise", "attention", "norm and elementwise"} <= set(profiled["groups"])


def test_the_full_scale_is_refused_without_a_gpu() -> None:
    done = _benchmark("--scale", "7b")
    if done.returncode == 0:
        pytest.skip("there is a GPU here")
    assert done.returncode == 2
    assert "needs an NVIDIA GPU" in done.stderr


class _MadeUp:
    """Stands in for the processes: rows with made-up rates, and what was asked for."""

    asked: list[tuple[str, str]]

    def __init__(self, *_: object) -> None:
        self.broken, self.base = False, "models/made-up"
        type(self).asked = []

    def child(self, variant: str, workload: str = "", *, profile: bool = False) -> dict[str, Any]:
        if variant in {BASE, CEILING}:
            return {"matmul_flop_per_second": 1e12}
        self.asked.append((variant, "profile" if profile else workload))
        if profile:
            return {"variant": variant, "workload": workload, **summarise([Kernel("nvjet", 2.0, 9)], 3.0, 3)}
        return self._row(variant, workload)

    def peer(self, peer: Peer, python: str, workload: str) -> dict[str, Any]:
        self.asked.append((peer.name, python))
        return self._row(peer.name, workload)

    def _row(self, variant: str, workload: str) -> dict[str, Any]:
        rate = float(len(variant))
        row = {"variant": variant, "workload": workload, "attention": "sdpa", "tokens_per_second": rate}
        return {**row, "milliseconds_per_step": 1.0, "peak_memory_bytes": None}


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[_MadeUp]:
    monkeypatch.setattr(benchmark, "Bench", _MadeUp)
    monkeypatch.setattr(benchmark, "PROJECT_ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)  # put back afterwards
    return _MadeUp


def _written(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "outputs/bench/gpu-small.json").read_text(encoding="utf-8")))


def test_the_fastest_of_the_kits_variants_on_full_rows_is_profiled(
    made_up: type[_MadeUp], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["trl sft", "kit defaults", "every 2nd layer checkpointed", "rows end to end"]
    assert benchmark.main(["--scale", "small", "--profile", "--variants", *names]) == 0
    assert made_up.asked[-1] == ("every 2nd layer checkpointed", "profile")
    out = capsys.readouterr().out
    assert "profile of every 2nd layer checkpointed, full rows: 1,000 ms a step" in out
    assert "next bottleneck: matmul" in out
    assert _written(tmp_path)["profile"]["groups"] == pytest.approx({"matmul": 2 / 3, "idle": 1 / 3})


def test_peers_come_after_the_kits_defaults_and_the_baseline_comes_again_at_the_end(
    made_up: type[_MadeUp], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {peer.key for peer in PEERS}
    monkeypatch.setattr(benchmark, "environments", lambda *_, **__: (dict.fromkeys(keys, "/a/python"), {}))
    assert benchmark.main(["--scale", "small", "--variants", "trl sft", "kit defaults", "rows end to end"]) == 0
    order = [name for name, _ in made_up.asked]
    assert list(dict.fromkeys(order)) == ["trl sft", "kit defaults", *(peer.name for peer in PEERS), "rows end to end"]
    assert order[-2:] == ["trl sft"] * 2
    assert f"| {PEERS[0].name} | full | sdpa |" in capsys.readouterr().out
    assert _written(tmp_path)["profile"] is None


def test_a_peer_that_cannot_be_had_stands_in_the_table_with_the_reason(
    made_up: type[_MadeUp], capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark.main(["--scale", "small", "--variants", "kit defaults"]) == 0
    assert not {peer.name for peer in PEERS} & {name for name, _ in made_up.asked}
    assert f"| {PEERS[0].name} | full | needs an NVIDIA GPU and the 7b scale |" in capsys.readouterr().out
    assert benchmark.main(["--scale", "small", "--variants", "kit defaults", "--peers"]) == 0
    assert PEERS[0].name not in capsys.readouterr().out


def test_a_variant_whose_package_is_not_there_is_left_out_with_the_reason(
    made_up: type[_MadeUp], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = replace(judge(probe()), platform="h100", reason="a made-up H100")
    monkeypatch.setattr(benchmark, "judge", lambda _machine: judged)
    without = {"torch": "2.11.0", "transformers": "5.17.0"}
    wanted = ["--peers", "--variants", "kit defaults", "Liger kernels"]
    monkeypatch.setattr(benchmark, "installed_stack", lambda: Stack("current", without))
    assert benchmark.main(wanted) == 0
    assert {name for name, _ in made_up.asked} == {"kit defaults"}
    assert "left out: Liger kernels needs liger-kernel, which is not installed" in capsys.readouterr().err
    monkeypatch.setattr(benchmark, "installed_stack", lambda: Stack("current", {**without, "liger-kernel": "0.8.5"}))
    assert benchmark.main(wanted) == 0
    assert {name for name, _ in made_up.asked} == {"kit defaults", "Liger kernels"}
