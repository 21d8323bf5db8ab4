"""What was changed so that a run fits is written down, found again and taken again, and nothing else is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import Resolved, resolve
from kit.machine import facts as machines
from kit.machine.platforms import judge
from kit.plan.alternatives import planned_run_of
from kit.plan.run_plan import device_for
from kit.run_directory.process import this_process
from kit.stacks.stack import stack_of
from kit.train import auto_fit
from kit.train.auto_fit import applied, is_pending, planned_fit, recorded, set_line
from kit.train.fit import Fit, TimedSettings

if TYPE_CHECKING:
    from pathlib import Path

    from kit.plan.alternatives import PlannedRun

H100 = PROJECT_ROOT / "configs" / "training_config_h100.yaml"
STACK = stack_of({"torch": "2.10.0", "transformers": "5.23.0", "bitsandbytes": "0.50.2"})
ROWS, UPDATES = "training.per_device_train_batch_size", "training.gradient_accumulation_steps"
HALVED = Fit({ROWS: 4, UPDATES: 4}, {ROWS: 2, UPDATES: 8}, "the rehearsal ran out of memory at 4 x 4,096 tokens", 9)
AGAIN = Fit({ROWS: 2, UPDATES: 8}, {ROWS: 1, UPDATES: 16}, "the rehearsal ran out of memory at 2 x 4,096 tokens", 7)


def _receipt(*fits: Fit, **more: Any) -> dict[str, Any]:
    return dict(json.loads(json.dumps({"auto_fit": [fit.as_mapping() for fit in fits], **more})))


def _planned_run(resolved: Resolved, free_bytes: int) -> PlannedRun | None:
    machine = machines.read(PROJECT_ROOT / "tests/fixtures/machines/h100_80gb.json")
    assert machine.nvidia is not None
    in_use = tuple(gpu.memory_total_bytes - free_bytes for gpu in machine.nvidia.gpus)
    gpus = tuple(replace(gpu, memory_used_bytes=used) for gpu, used in zip(machine.nvidia.gpus, in_use, strict=True))
    machine = replace(machine, nvidia=replace(machine.nvidia, gpus=gpus))
    return planned_run_of(resolved.settings, device_for(resolved.settings, judge(machine), machine, STACK), None)


@pytest.fixture
def resolved() -> Resolved:
    return resolve(H100)


def test_a_fit_is_in_the_settings_the_values_and_their_origins(resolved: Resolved) -> None:
    fitted = applied(resolved, HALVED)
    assert fitted.settings.training.per_device_train_batch_size == 2
    assert fitted.settings.effective_batch_size == resolved.settings.effective_batch_size == 16
    assert fitted.values["training"]["gradient_accumulation_steps"] == 8
    assert fitted.origins[ROWS] == "--auto-fit, was 4"
    assert resolved.values["training"]["per_device_train_batch_size"] == 4


def test_fits_are_read_back_from_the_receipt_in_their_order(resolved: Resolved) -> None:
    assert recorded(_receipt(HALVED, AGAIN), resolved) == [HALVED, AGAIN]
    tried = (TimedSettings({}, problem="CUDA out of memory"), TimedSettings(HALVED.after, (0.1, 1 / 3), 123.4, 9))
    chosen, kept = replace(HALVED, tried=tried), Fit({}, {}, "as fast", tried=tried)
    assert recorded(_receipt(chosen, AGAIN), resolved) == [chosen, AGAIN]
    assert recorded(_receipt(kept), resolved) == [kept]
    assert recorded({}, resolved) == []


def test_fits_of_another_configuration_are_not_taken() -> None:
    changed = resolve(H100, {ROWS: 8, UPDATES: 2})
    assert recorded(_receipt(HALVED, AGAIN), changed) == []


@pytest.mark.parametrize(
    "damaged",
    [
        {"auto_fit": [{"from": 1}]},
        {"auto_fit": [["from"]]},
        {"auto_fit": 7},
        {"auto_fit": [{"from": {"a.b": 1}, "to": {}}]},
        {"auto_fit": [{**HALVED.as_mapping(), "tried": [{"to": {}}]}]},
        {"auto_fit": [{**HALVED.as_mapping(), "tried": [{**TimedSettings({}).as_mapping(), "seconds": [10**400]}]}]},
    ],
)
def test_a_receipt_edited_by_hand_is_no_fit(damaged: dict[str, Any], resolved: Resolved) -> None:
    assert recorded(damaged, resolved) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"training.output_dir": "/elsewhere"}),
        ({"training.learning_rate": 2e-4}, {"training.learning_rate": 9.0}),
        ({ROWS: 4}, {ROWS: 2}),  # half an update
        ({ROWS: 4, UPDATES: 4}, {ROWS: "2", UPDATES: 8}),
        ({ROWS: 4, UPDATES: 4}, {ROWS: -2, UPDATES: -8}),
    ],
)
def test_a_receipt_changes_nothing_but_how_an_update_is_cut(
    before: dict[str, Any], after: dict[str, Any], resolved: Resolved
) -> None:
    """Any key could be set by a receipt, and counted then as allowed to differ from the checkpoint."""
    known = {key: resolved.value(key) for key in before}
    assert recorded(_receipt(Fit(known, after, "it was so")), resolved) == []


def test_only_the_process_that_began_again_finds_its_own_attempt() -> None:
    mine = _receipt(HALVED, begins_again=True, process=this_process())
    assert is_pending(mine)
    process = this_process()
    moved = {key: process[key] + 1.0 for key in ("created", "machine_started")}
    assert is_pending({**mine, "process": {**process, **moved}}), "a clock that was adjusted meanwhile"
    assert not is_pending({**mine, "process": {**process, "created": 0.0, "start_ticks": 0}})
    assert not is_pending({**mine, "process": {**process, "pid": os.getppid()}})
    assert not is_pending({**mine, "begins_again": False})
    assert not is_pending({})


def test_the_line_to_type_holds_what_was_typed_already(resolved: Resolved) -> None:
    assert set_line(resolved, HALVED) == f'SET="{ROWS}=2 {UPDATES}=8"'
    typed = resolve(H100, ["training.learning_rate=1e-4", f"{ROWS}=4"])
    assert set_line(typed, HALVED) == f'SET="training.learning_rate=0.0001 {ROWS}=2 {UPDATES}=8"'


def test_a_run_planned_not_to_fit_is_fitted_before_it_begins(resolved: Resolved) -> None:
    fit = planned_fit(resolved, _planned_run(resolved, 12 * 10**9))
    assert fit is not None
    assert fit.measured_bytes is None
    assert "planned, 12" in fit.reason
    fitted = applied(resolved, fit).settings
    assert fitted.effective_batch_size == 16
    assert fitted.training.max_seq_length == resolved.settings.training.max_seq_length


def test_a_run_whose_rows_would_have_to_be_cut_is_not_fitted(resolved: Resolved) -> None:
    assert planned_fit(resolved, _planned_run(resolved, 5 * 10**9)) is None


def test_a_model_of_unknown_shape_is_not_fitted(resolved: Resolved) -> None:
    assert planned_fit(resolved, None) is None


AGAIN_ONCE = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from kit.train import auto_fit
from kit.run_directory.process import this_process
receipt = Path(sys.argv[2]) / "run.json"
if receipt.exists():
    left_open = [name for name in os.listdir("/dev/fd") if os.path.realpath(f"/dev/fd/{name}") == str(receipt)]
    print(json.dumps([auto_fit.is_pending(json.loads(receipt.read_text())), left_open, sys.argv[3:]]))
else:
    file = receipt.open("w")
    file.write(json.dumps({"begins_again": True, "process": this_process()}))
    file.flush()
    os.set_inheritable(file.fileno(), True)  # as a driver's might be
    auto_fit._COMMAND = tuple(sys.argv[:3])
    auto_fit.begin_again(sys.argv[3:])
"""


def test_beginning_again_is_the_same_command_in_the_same_process_with_nothing_left_open(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(AGAIN_ONCE, encoding="utf-8")
    words = ["some.yaml", "training.run_name=it's a run", "--auto-fit"]
    command = [sys.executable, str(tmp_path / "train.py"), str(PROJECT_ROOT / "scripts"), str(tmp_path), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, [], words]


def test_what_begins_again_is_the_command_line_with_the_same_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr(auto_fit.os, "execv", lambda *given: called.append(given))
    auto_fit.begin_again(["some.yaml"])
    command = [sys.executable, str(PROJECT_ROOT / "scripts/kit"), "train", "some.yaml"]
    assert called == [(sys.executable, command)]
