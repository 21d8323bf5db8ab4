"""Two clones of the kit in two folders, each with data and base made in it, train the same adapter to the last bit.

What is cloned is the last commit: changes that are not committed are tried by every other test.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("git") is None or not (PROJECT_ROOT / ".git").exists(), reason="this is no git checkout"
    ),
]
# Paths of other lengths: what a path decides, by its place in a hash, an order or a buffer, would come out otherwise.
FOLDERS = ("a", "a much longer name/for the second clone")
# In one process, as importing torch takes longest.
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, "scripts")
from tools import make_sample_data
from kit.cli.command import call
from kit.commands import train
from kit.demo.base import pretrain
assert make_sample_data.main() == 0
pretrain(Path("models/demo-base"), steps=4, batch_size=8)
raise SystemExit(call(train, [
    "configs/training_config_demo.yaml", "training.max_steps=3", "training.per_device_train_batch_size=4",
    "training.save_steps=2", "training.eval_steps=100",
]))
"""


@pytest.fixture(scope="module")
def receipts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Of a run in each of the clones."""
    pytest.importorskip("torch", reason="needs the libraries: make setup")
    clones = [tmp_path_factory.mktemp("clones") / name for name in FOLDERS]
    for clone in clones:
        subprocess.run(["git", "clone", "--quiet", "--local", str(PROJECT_ROOT), str(clone)], check=True)
    processes = [_start(clone) for clone in clones]
    try:
        talk = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], "".join(talk)
    return [json.loads((clone / "outputs/demo/run.json").read_text(encoding="utf-8")) for clone in clones]


def _start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_adapters_are_identical(receipts: list[dict[str, Any]]) -> None:
    one, other = receipts
    for key in ("adapter_init_sha256", "adapter_sha256"):
        assert one[key] == other[key], key
    weights = "adapter_model.safetensors"
    assert one["adapter_files"][weights] == other["adapter_files"][weights]


def test_every_loss_is_identical(receipts: list[dict[str, Any]]) -> None:
    one, other = receipts
    assert one["loss_trace_sha256"] == other["loss_trace_sha256"]
    assert one["eval_loss"] == other["eval_loss"] is not None


def test_so_are_the_data_and_the_base_that_were_made_in_each(receipts: list[dict[str, Any]]) -> None:
    one, other = receipts
    for key in ("data", "base_model", "identity", "git_revision", "packages"):
        assert one[key] == other[key], key


def test_and_the_optimizers_at_the_end(receipts: list[dict[str, Any]]) -> None:
    one, other = ([entry["files"]["optimizer.safetensors"] for entry in each["checkpoints"]] for each in receipts)
    assert one == other
    assert len(one) == 2
