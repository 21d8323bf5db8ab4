"""The plan's formulas against what really is taken: small models of random weights, counted by torch itself."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bench.memory_cases import Measured, gpu_cases
from bench.memory_comparison import KEPT_WITHIN, PEAK_WITHIN, against
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.model.shape import ModelShape
from kit.plan.activations import saved_by_model
from kit.plan.ledger import FOLDER, newest, read_all
from kit.plan.loss import saved_by_loss
from kit.plan.memory import step_bytes
from kit.plan.step import MicroBatch, TrainingStep
from kit.stacks.registry import GENERATIONS
from kit.stacks.stack import installed_stack
from small_run import run_training

if TYPE_CHECKING:
    from pathlib import Path


def _off_by_more_than_1_percent(cases: list[dict[str, Any]]) -> list[str]:
    """Name what stands or is kept for the backward pass, and is not what the formulas say."""
    pairs = [(case["name"], what, case[f"{what}_bytes"]) for case in cases for what in ("standing", "kept")]
    return [f"{name}: {what}" for name, what, pair in pairs if abs(pair["predicted"] / pair["measured"] - 1) > 0.01]


def _compare(python: str, folder: Path) -> list[dict[str, Any]]:
    command = [python, "-m", "bench.prove", "--scale", "small", "--only", "memory", "--ledger", str(folder), "--json"]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [item["record"]["result"] for item in json.loads(done.stdout)["measurements"]]


def test_todays_formulas_meet_what_an_h100_took() -> None:
    """Of each case the newest measurement; one that failed holds no figures, and one may not be measured yet."""
    taken = newest([record for record in read_all(FOLDER) if "H100" in record.place.device])
    found = []
    for case in gpu_cases(GENERATIONS["current"].traits, (9, 0)):
        record = taken.get(f"memory/{case.name}")
        if record is None or "failed" in record.result:
            continue
        result = record.result
        counted = {what: result[f"{what}_bytes"]["measured"] for what in ("standing", "kept", "peak", "layers")}
        step = counted["peak"] - counted["standing"]
        found.append(against(case, Measured(counted["standing"], counted["kept"], step, counted["layers"])))
    assert len(found) >= 13
    assert [case.line for case in found if not case.is_within] == []
    assert [case.line for case in found if case.standing[0] != pytest.approx(case.standing[1], rel=0.001)] == []


@pytest.mark.slow
def test_a_run_on_a_cpu_takes_what_was_planned(tmp_path: Path) -> None:
    """A real small model's shape, but for the number of its layers: a large vocabulary, tied, three key heads of nine.

    Its own memory is a quarter more than its tensors and the libraries: what the C library does not give back.
    """
    torch = pytest.importorskip("torch", reason="needs the libraries: make setup")
    if installed_stack().name != "current":
        pytest.skip("the installed stack is not the current one")
    from bench.random_base import write_random_base

    shape = ModelShape(49_152, 576, 1536, 8, 9, 3, 64, 8_192, tie_word_embeddings=True)
    base = write_random_base(shape, tmp_path / "base", dtype=torch.bfloat16, device="cpu")
    rows = tmp_path / "rows.jsonl"
    turns = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "x" * 72}]
    rows.write_text((json.dumps({"messages": turns}) + "\n") * 16, encoding="utf-8")
    changes = {
        "data__train_file": rows,
        "training__max_seq_length": 128,
        "training__per_device_train_batch_size": 8,
        "training__per_device_eval_batch_size": 8,
        "training__max_steps": 1,
        "training__eval_steps": 1,
    }
    done = run_training(base, tmp_path / "out", python=sys.executable, **changes)
    assert done.returncode == 0, done.stderr
    receipt = json.loads((tmp_path / "out/run.json").read_text(encoding="utf-8"))
    assert receipt["predicted"]["allocated_bytes"] == pytest.approx(receipt["peak_memory_bytes"], rel=0.08)


@pytest.mark.slow
def test_the_current_stack_keeps_and_peaks_as_planned(tmp_path: Path) -> None:
    if installed_stack().name != "current":
        pytest.skip("the installed stack is not the current one")
    found = _compare(sys.executable, tmp_path)
    assert len(found) >= 20
    assert [case for case in found if not case["within"]] == []
    assert _off_by_more_than_1_percent(found) == []


@pytest.mark.slow
@pytest.mark.stacks
def test_the_reference_stack_keeps_and_peaks_as_planned(tmp_path: Path) -> None:
    python = PROJECT_ROOT / ".venv-reference" / "bin" / "python"
    if not python.exists():
        pytest.skip("needs .venv-reference: make setup STACK=reference")
    found = _compare(str(python), tmp_path)
    assert len(found) >= 15
    assert [case for case in found if not case["within"]] == []
    assert _off_by_more_than_1_percent(found) == []


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.05])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_cuda_does_differently_is_planned_for(
    checkpointing: bool, dropout: float, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """On CUDA peft sees autocast and casts nothing: made so here. A dropout mask has one byte there, and two here.

    What leaves autocast puts back what it found when it began, and finds it on here: so it is switched off at the end.
    """
    torch = pytest.importorskip("torch", reason="needs the libraries: make setup")
    if installed_stack().name != "current":
        pytest.skip("the installed stack is not the current one")
    from bench.memory_measure import measure

    request.addfinalizer(lambda: torch.set_autocast_enabled("cpu", False))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: True)
    overrides: dict[str, Any] = {"lora.lora_dropout": dropout, "training.gradient_checkpointing": checkpointing}
    settings = resolve(PROJECT_ROOT / "configs" / "training_config_h100.yaml", overrides).settings
    shape = ModelShape(512, 512, 1792, 3, 8, 2, 64, 4096)
    here = TrainingStep(
        shape, settings, GENERATIONS["current"].traits, "cpu", "sdpa", MicroBatch(4, 128, False, 4 * 127)
    )
    on_cuda = replace(here, device="cuda")
    masks_of_a_layer = here.batch.tokens * (6 * 512 + 1792) if dropout else 0
    # Without checkpoints every layer has its masks, but for q, k and v of the first, whose input needs no gradient.
    layers, less = (0, 0) if checkpointing else (3, 3 * 512 * here.batch.tokens if dropout else 0)
    measured = measure(here)
    kept = saved_by_model(on_cuda) + saved_by_loss(here) + layers * masks_of_a_layer - less
    assert kept == pytest.approx(measured.saved_bytes, rel=KEPT_WITHIN)
    peak = step_bytes(on_cuda, with_loss=False) + max(layers, 1) * masks_of_a_layer - less
    assert peak == pytest.approx(measured.layers_bytes, rel=PEAK_WITHIN)
