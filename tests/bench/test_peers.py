"""A peer trains the kit's own rows, in the kit's order, and one that cannot be had is named with the reason."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from bench import commands, peers
from bench.peers import PEERS, Peer, write_job
from bench.variants import KIT, SCALES, Variant, overrides, rows_of
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.data.batch_order import order_batches
from tools.setup.uv import SetupError

if TYPE_CHECKING:
    from pathlib import Path

H100 = PROJECT_ROOT / "configs/training_config_h100.yaml"
SMALL = SCALES["small"]


def _program(peer: Peer) -> Any:
    spec = importlib.util.spec_from_file_location(peer.program.stem, peer.program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("workload", ["full", "ragged"])
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peers_job_is_the_kits_own(peer: Peer, workload: str, tmp_path: Path) -> None:
    path, result = write_job(peer, workload, SMALL, tmp_path / "base", tmp_path)
    job = json.loads(path.read_text(encoding="utf-8"))
    settings = resolve(H100, overrides(Variant(KIT), workload, SMALL, on_cuda=True)).settings
    plan = order_batches(settings, rows_of(workload, SMALL))
    assert [row["input_ids"] for row in job["rows"]] == [plan.rows[index].input_ids for index in plan.order]
    assert job["rows_at_once"] * job["accumulation"] == settings.effective_batch_size
    assert len(job["rows"]) == job["steps"] * settings.effective_batch_size
    assert job["timed_tokens"] == plan.tokens[-1] - plan.tokens[SMALL.warm_up - 1]
    assert job["lora"]["dropout"] == dict(peer.changes).get("lora.lora_dropout", settings.lora.lora_dropout)
    assert (job["lora"]["r"], len(job["lora"]["target_modules"])) == (16, 7)
    assert job["result"] == str(result)


@pytest.mark.parametrize("peer", {peer.key: peer for peer in PEERS}.values(), ids=lambda peer: peer.key)
def test_a_peers_program_reads_the_job_and_counts_as_the_kit_does(peer: Peer, tmp_path: Path) -> None:
    program = _program(peer)  # imports nothing but the standard library
    path, _ = write_job(peer, "ragged", SMALL, tmp_path / "base", tmp_path)
    job = json.loads(path.read_text(encoding="utf-8"))
    columns = program.columns_of(job)
    lengths = {name: [len(row) for row in rows] for name, rows in columns.items()}
    assert lengths == {key: [len(row["input_ids"]) for row in job["rows"]] for key in ("input_ids", "labels")}
    row = program.result_of(job, [0.0, 9.0, 10.0, 11.0, 13.0], {"attention": "its own"})
    assert row["milliseconds_per_step"] == 1000.0
    assert row["tokens_per_second"] == pytest.approx(job["timed_tokens"] / 4.0)
    assert (row["variant"], row["workload"], row["attention"]) == (peer.name, "ragged", "its own")


def test_a_peer_that_cannot_be_installed_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def install(*_: Any) -> str:
        raise SetupError("the package registry cannot be reached", "check the network")

    monkeypatch.setattr(peers, "side_environment", install)
    found = commands.peer(f"full/{PEERS[0].name}", SMALL, tmp_path / "base")
    assert found == {"failed": "not installed: the package registry cannot be reached"}


def test_a_peer_that_breaks_is_a_row_with_its_last_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Really run, with a Python that has none of it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    monkeypatch.setattr(peers, "side_environment", lambda *_: str(tmp_path / "bare/bin/python"))
    found = commands.peer(f"full/{PEERS[0].name}", SMALL, tmp_path / "base")
    assert "No module named 'unsloth'" in found["failed"]
