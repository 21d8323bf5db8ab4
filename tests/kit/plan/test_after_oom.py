"""After a refused rehearsal: the same updates, less at once, by what was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.machine import facts as machines
from kit.machine.platforms import judge
from kit.model.shape import MISTRAL_7B, ModelShape
from kit.plan.after_oom import OutOfMemory, asked_bytes, growth, nearest_that_fits
from kit.plan.alternatives import PlannedRun
from kit.plan.memory import coming_bytes
from kit.plan.run_plan import Device
from kit.plan.workload import full_length
from kit.stacks.stack import stack_named

H100 = PROJECT_ROOT / "configs" / "training_config_h100.yaml"
SMALL = ModelShape(512, 128, 384, 4, 4, 2, 32, 256)
GB = 10**9


def _planned_run(shape: ModelShape = MISTRAL_7B, **overrides: Any) -> PlannedRun:
    machine = machines.read(PROJECT_ROOT / "tests/fixtures/machines/h100_80gb.json")
    judgement = judge(machine)
    settings = resolve(H100, {f"training.{key}": value for key, value in overrides.items()}).settings
    device = Device(
        machine, judgement.platform, judgement.gpu, stack_named("current", judgement.platform, elsewhere=True), "sdpa"
    )
    return PlannedRun(settings, shape, device, lambda given: full_length(given, 1000))


def _refusal(reached: float, room: float, standing: float = 4.2) -> OutOfMemory:
    return OutOfMemory(4, 4096, round(standing * GB), round(reached * GB), round(room * GB))


@pytest.mark.parametrize(
    ("message", "size"),
    [
        ("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.1 GiB", 2.5 * 2**30),
        (
            "MPS backend out of memory (MPS allocated: 18 GB). Tried to allocate 256.00 MB on private pool.",
            2**28,
        ),
        ("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes.", 4096),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED", 0),
        ("", 0),
    ],
)
def test_what_was_asked_for_is_read_from_the_refusal(message: str, size: float) -> None:
    assert asked_bytes(message) == size


def test_a_micro_batch_is_taken_to_need_at_least_what_it_reached() -> None:
    planned_run = _planned_run()
    plan = planned_run.with_changes({}).plan
    doubled = OutOfMemory(4, 4096, 4 * GB, 4 * GB + 2 * plan.peak.moving_bytes, 80 * GB)
    assert growth(doubled, plan) == pytest.approx(2.0)
    assert growth(replace(doubled, reached_bytes=5 * GB), plan) == 1.0


@pytest.mark.parametrize("room", [9, 12, 16, 24])
def test_what_is_offered_keeps_the_updates_and_fits_by_what_was_measured(room: int) -> None:
    planned_run = _planned_run(per_device_train_batch_size=8, gradient_accumulation_steps=2)
    refusal = _refusal(reached=room + 6.0, room=room)
    found = nearest_that_fits(planned_run, refusal)
    assert found is not None
    settings = planned_run.settings.with_changes(dict(found.changes))
    assert settings.effective_batch_size == 16
    assert {key.partition(".")[0] for key, _ in found.changes} == {"training"}
    assert not {"training.max_seq_length", "training.num_train_epochs"} & dict(found.changes).keys()
    refused = planned_run.with_changes({}).plan
    scaled = growth(refusal, refused) * found.plan.peak.moving_bytes
    whole = refusal.standing_bytes + coming_bytes(MISTRAL_7B, settings) + scaled
    assert whole <= refusal.room_bytes * 0.9


def test_the_fastest_that_fits_is_the_nearest() -> None:
    planned_run = _planned_run(gradient_checkpointing=False)
    roomy, narrow = (nearest_that_fits(planned_run, _refusal(reached=room + 10, room=room)) for room in (70, 20))
    assert roomy is not None
    assert narrow is not None
    assert roomy.cost < narrow.cost
    assert roomy.plan.peak_memory_bytes > narrow.plan.peak_memory_bytes


def test_each_refusal_leads_to_less_until_nothing_is_left() -> None:
    """A device that refuses everything, although by arithmetic all of it should fit."""
    planned_run, seen = _planned_run(per_device_train_batch_size=8, gradient_checkpointing=False), []
    for _ in range(100):
        found = nearest_that_fits(planned_run, _refusal(reached=5.0, room=80.0))
        if found is None:
            break
        seen.append(found.plan.peak.moving_bytes)
        planned_run = replace(planned_run, settings=planned_run.settings.with_changes(dict(found.changes)))
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == len(seen) > 2
    assert planned_run.settings.training.per_device_train_batch_size == 1
    assert planned_run.settings.training.gradient_checkpointing


def test_nothing_is_offered_where_the_base_alone_leaves_no_room() -> None:
    assert nearest_that_fits(_planned_run(), _refusal(reached=9.0, room=4.5)) is None


def test_a_model_too_small_for_time_keeps_its_micro_batch_large_and_recomputes_little() -> None:
    planned_run = _planned_run(SMALL, per_device_train_batch_size=8, gradient_checkpointing=False, max_seq_length=128)
    found = nearest_that_fits(planned_run, _refusal(reached=1.1, room=20.0, standing=1.0))
    assert found is not None
    assert dict(found.changes) == {
        "training.per_device_train_batch_size": 4,
        "training.gradient_accumulation_steps": 8,
    }


def test_what_took_several_times_its_plan_is_taken_to_do_so_again() -> None:
    planned_run = _planned_run(per_device_train_batch_size=8, gradient_accumulation_steps=2)
    moving = planned_run.with_changes({}).plan.peak.moving_bytes
    standing = round(4.2 * GB)
    found = nearest_that_fits(planned_run, OutOfMemory(8, 4096, standing, standing + 4 * moving, standing + 2 * moving))
    assert found is not None
    assert found.plan.peak.moving_bytes < 0.45 * moving


def test_a_refusal_that_nothing_explains_leads_to_a_third_less() -> None:
    planned_run = _planned_run(
        per_device_train_batch_size=1, gradient_accumulation_steps=16, gradient_checkpointing=False
    )
    moving = planned_run.with_changes({}).plan.peak.moving_bytes
    found = nearest_that_fits(planned_run, _refusal(reached=5.0, room=500.0))
    assert found is not None
    assert 0.3 * moving < found.plan.peak.moving_bytes <= moving * 2 / 3
