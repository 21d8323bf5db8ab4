"""Both stacks train the same thing: the same model, on the same rows, with the same losses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from small_run import deviations, losses, read_metrics, read_receipt, run_training

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE = PROJECT_ROOT / ".venv-reference" / "bin" / "python"
STEPS = 100
pytestmark = [
    pytest.mark.stacks,
    pytest.mark.skipif(not REFERENCE.exists(), reason="there is no .venv-reference: make setup STACK=reference"),
]
PYTHONS = {"current": sys.executable, "reference": str(REFERENCE)}


@dataclass(frozen=True)
class Pair:
    current: Path
    reference: Path


def _train_on_both(tiny_base: Path, folder: Path, **changes: object) -> Pair:
    outputs = {}
    for stack, python in PYTHONS.items():
        outputs[stack] = folder / stack
        done = run_training(
            tiny_base,
            outputs[stack],
            python=python,
            quantization__load_in_4bit=False,
            model__attn_implementation="eager",
            training__max_steps=STEPS,
            training__eval_steps=50,
            # 13 rows a step, in micro-batches that do not divide the epoch, over more than one epoch of the few rows.
            data__train_file=_few_rows(folder, 300),
            training__per_device_train_batch_size=3,
            training__gradient_accumulation_steps=4,
            **changes,
        )
        assert done.returncode == 0, done.stderr
    return Pair(**outputs)


def _few_rows(folder: Path, count: int) -> Path:
    path = folder / "few.jsonl"
    rows = (PROJECT_ROOT / "data/sample/train.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def without_dropout(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return _train_on_both(tiny_base, tmp_path_factory.mktemp("exact"), lora__lora_dropout=0.0)


def test_each_run_names_its_stack(without_dropout: Pair) -> None:
    assert read_receipt(without_dropout.current)["stack"] == "current"
    assert read_receipt(without_dropout.reference)["stack"] == "reference"


def test_the_locked_reference_stack_trains(without_dropout: Pair) -> None:
    """A lock counts as good when a run with exactly its versions has trained."""
    receipt = read_receipt(without_dropout.reference)
    assert deviations(receipt, PROJECT_ROOT / "locks/reference-linux-x86_64.txt") == {}


def test_adapters_start_identical(without_dropout: Pair) -> None:
    hashes = {read_receipt(output)["adapter_init_sha256"] for output in vars(without_dropout).values()}
    assert len(hashes) == 1


def test_losses_agree_without_dropout(without_dropout: Pair) -> None:
    current, reference = losses(without_dropout.current), losses(without_dropout.reference)
    assert len(current) == STEPS
    assert current == pytest.approx(reference, abs=1e-4)
    assert current[-1] < current[0] - 0.5, "the runs learnt nothing, so their agreement would mean nothing"


def test_schedules_norms_and_evaluations_agree(without_dropout: Pair) -> None:
    current, reference = read_metrics(without_dropout.current), read_metrics(without_dropout.reference)
    for mine, theirs in zip(current, reference, strict=True):
        assert mine.keys() == theirs.keys()
        for key in ("step", "epoch", "tokens", "learning_rate"):
            assert mine.get(key, 0.0) == pytest.approx(theirs.get(key, 0.0), rel=1e-9)
        assert mine.get("grad_norm", 0.0) == pytest.approx(theirs.get("grad_norm", 0.0), rel=1e-2)
        assert mine.get("eval_loss", 0.0) == pytest.approx(theirs.get("eval_loss", 0.0), abs=1e-4)


def test_losses_agree_with_dropout(tiny_base: Path, tmp_path: Path) -> None:
    pair = _train_on_both(tiny_base, tmp_path, lora__lora_dropout=0.05)
    assert losses(pair.current) == pytest.approx(losses(pair.reference), rel=0.01)


@pytest.mark.parametrize("maker", ["current", "reference"])
def test_an_adapter_loads_and_scores_the_same_in_the_other_stack(
    without_dropout: Pair, tiny_base: Path, maker: str
) -> None:
    adapter = getattr(without_dropout, maker) / "adapter"
    data = PROJECT_ROOT / "data/sample/val.jsonl"
    scores = {}
    for stack, python in PYTHONS.items():
        command = [
            python,
            "-W",
            "ignore",
            str(PROJECT_ROOT / "tests/score_adapter.py"),
            str(tiny_base),
            str(adapter),
            str(data),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        scores[stack] = json.loads(done.stdout)
    assert len(scores["current"]) == 100
    assert scores["current"] == pytest.approx(scores["reference"], abs=1e-5)


def test_the_reference_stack_agrees_with_the_formulas_too(tmp_path: Path) -> None:
    """The current stack is held to them in tests/kit/parity: where both agree, they train the same thing."""
    command = [
        str(REFERENCE),
        str(PROJECT_ROOT / "scripts/kit"),
        "parity",
        "--cpu",
        "--out",
        str(tmp_path / "found.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reference stack agrees with the formulas" in done.stdout
