"""A run that does not fit is told what would; with --auto-fit it takes that, says so, and ends as the run would have.

Only the device's refusal is made up: a micro-batch of more tokens than ``ROOM`` is out of memory. All else is real.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from kit.cli.command import call
from kit.commands import train
from kit.plan import run_plan as planning
from kit.plan.limits import MemoryLimit
from small_run import CONFIG, losses, overrides, read_receipt

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch", reason="needs the libraries: make setup")

ROOM = 300  # tokens; the largest micro-batch of 8 rows has 448, of 4 rows 224
ROWS, UPDATES = "training.per_device_train_batch_size", "training.gradient_accumulation_steps"
HALVED = {ROWS: 4, UPDATES: 2}


def _refuse(monkeypatch: pytest.MonkeyPatch, room: int = ROOM) -> None:
    """Have training refuse micro-batches of more than ``room`` tokens, in CUDA's words; begin again in this process."""
    import trl

    compute = trl.SFTTrainer.compute_loss

    def compute_or_refuse(self: Any, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        if model.training and inputs["input_ids"].numel() > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has a total capacity")
        return compute(self, model, inputs, *more, **named)

    monkeypatch.setattr(trl.SFTTrainer, "compute_loss", compute_or_refuse)
    monkeypatch.setattr(train, "begin_again", lambda argv: call(train, argv))


def _arguments(base: Path, output: Path, **changes: object) -> list[str]:
    changes = {
        "training__max_steps": 3,
        "training__per_device_train_batch_size": 8,
        "training__save_steps": 1,
        "lora__lora_dropout": 0.0,
        "data__val_file": None,
        **changes,
    }
    return [str(CONFIG), *overrides(base, output, **changes)]


@pytest.fixture(scope="module")
def fitted(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train with --auto-fit; return the run's folder."""
    output = tmp_path_factory.mktemp("fitted") / "out"
    with pytest.MonkeyPatch.context() as monkeypatch:
        _refuse(monkeypatch)
        assert call(train, [*_arguments(tiny_base, output), "--auto-fit"]) == 0
    return output


def test_a_refused_run_begins_again_with_what_fits_and_writes_it_down(fitted: Path) -> None:
    receipt: Any = read_receipt(fitted)
    (fit,) = receipt["auto_fit"]
    assert fit["from"] == {ROWS: 8, UPDATES: 1}
    assert fit["to"] == HALVED
    assert "out of memory at 8 x 56 tokens" in fit["reason"]
    assert fit["measured_bytes"] > 2**30
    assert receipt["state"] == "finished"
    assert receipt["config"]["training"]["per_device_train_batch_size"] == 4
    assert receipt["origins"][ROWS] == "--auto-fit, was 8"
    assert receipt["rehearsal"]["rows"] == 4


def test_a_fitted_run_takes_the_steps_it_would_have_taken(fitted: Path, tiny_base: Path, tmp_path: Path) -> None:
    assert call(train, _arguments(tiny_base, tmp_path / "plain")) == 0
    assert losses(fitted) == pytest.approx(losses(tmp_path / "plain"), abs=2e-6)


def test_a_fitted_run_goes_on_as_it_was_fitted(
    fitted: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    shutil.copytree(fitted, output)
    command = [*_arguments(tiny_base, output), "--resume", "auto"]
    before = read_receipt(output)
    assert call(train, [*command, "--auto-fit"]) == 0
    assert "this run is finished" in capsys.readouterr().err
    shutil.rmtree(output / "adapter")
    for step in (2, 3):
        shutil.rmtree(output / f"checkpoints/checkpoint-{step}")
    assert call(train, command) == 1
    assert "repeat --auto-fit" in capsys.readouterr().err
    assert call(train, [*command, "--auto-fit"]) == 0
    after = read_receipt(output)
    assert after["adapter_sha256"] == before["adapter_sha256"]
    assert after["auto_fit"] == before["auto_fit"]
    assert after["changes_allowed"] == []


def test_a_run_refused_after_it_went_on_is_fitted_once_more(
    fitted: Path,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It goes on where there is less room: the checkpoint's micro-batch differs from now on, and that is recorded."""
    output = tmp_path / "out"
    shutil.copytree(fitted, output)
    shutil.rmtree(output / "adapter")
    shutil.rmtree(output / "checkpoints/checkpoint-3")
    _refuse(monkeypatch, room=130)
    assert call(train, [*_arguments(tiny_base, output), "--resume", "auto", "--auto-fit"]) == 0
    receipt: Any = read_receipt(output)
    assert [fit["to"][ROWS] for fit in receipt["auto_fit"]] == [4, 2]
    assert {(item["key"], item["was"], item["is"]) for item in receipt["changes_allowed"]} == {
        (ROWS, 4, 2),
        (UPDATES, 2, 4),
    }
    assert losses(output) == pytest.approx(losses(fitted), abs=2e-6)
    said = capsys.readouterr().err
    assert f"restarting with {ROWS}=2 {UPDATES}=4, the same updates" in said


def test_without_auto_fit_the_settings_that_fit_are_offered(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _refuse(monkeypatch)
    assert call(train, _arguments(tiny_base, tmp_path / "out")) == 1
    said = capsys.readouterr().err
    assert "out of memory at the largest micro-batch, 8 x 56 tokens, before the first step" in said
    assert "planned" in said
    assert f'{ROWS}=4 {UPDATES}=2" keeps the updates' in said
    assert "--auto-fit applies it automatically" in said
    receipt = read_receipt(tmp_path / "out")
    assert receipt["state"] == "failed"
    assert receipt["auto_fit"] == []


def test_a_run_that_is_planned_not_to_fit_is_fitted_before_it_begins(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planning, "memory_limit", lambda *_: MemoryLimit(1_400_000_000, "made up"))
    many = {"training__max_steps": 1, "training__per_device_train_batch_size": 64}
    assert call(train, _arguments(tiny_base, tmp_path / "out", **many)) == 1
    assert call(train, [*_arguments(tiny_base, tmp_path / "out", **many), "--auto-fit"]) == 0
    assert "the same updates; 1.9 GB planned, 1.4 GB available" in capsys.readouterr().err
    receipt: Any = read_receipt(tmp_path / "out")
    (fit,) = receipt["auto_fit"]
    assert fit["measured_bytes"] is None
    assert "GB available" in fit["reason"]
    assert receipt["config"]["training"]["per_device_train_batch_size"] < 64


def test_where_nothing_fits_the_run_is_refused(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planning, "memory_limit", lambda *_: MemoryLimit(10_000_000, "made up"))
    assert call(train, [*_arguments(tiny_base, tmp_path / "out"), "--auto-fit"]) == 1
    said = capsys.readouterr().err
    assert "no other micro-batch size with the same updates is planned to fit" in said
    assert not (tmp_path / "out/run.json").exists()
