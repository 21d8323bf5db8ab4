from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.data.batch_order import order_batches
from kit.data.encoding import EncodedRow
from kit.data.token_rows import TokenRows
from kit.machine import facts as machines
from kit.machine.facts import Apple, Gpu, Machine
from kit.machine.platforms import judge
from kit.model.shape import MISTRAL_7B, ModelShape
from kit.plan import alternatives, measured, time
from kit.plan.alternatives import PlannedRun, faster, mildest_that_fits, other_mathematics, planned_run_of
from kit.plan.limits import MemoryLimit, memory_limit
from kit.plan.measured import rate_of, rates_on
from kit.plan.rows import workloads_for
from kit.plan.run_plan import Device, device_for, plan_run
from kit.plan.show import left_out
from kit.plan.step import MicroBatch, TrainingStep
from kit.plan.time import flop_of, speed_of
from kit.plan.workload import Workload, full_length, workload_of
from kit.stacks.registry import GENERATIONS
from kit.stacks.stack import Stack, stack_named

H100 = PROJECT_ROOT / "configs" / "training_config_h100.yaml"
MACHINES = PROJECT_ROOT / "tests" / "fixtures" / "machines"
MACHINE = Machine("Linux", "x86_64", "3.11.9", "x86", 8, 64 * 10**9, 48 * 10**9, 10**12, in_container=False)
EVERY_N = "training.gradient_checkpointing_every_n_layers"
SMALL = ModelShape(512, 128, 384, 4, 4, 2, 32, 256)


def _settings(**overrides: Any) -> Any:
    return resolve(H100, {key.replace("__", "."): value for key, value in overrides.items()}).settings


def _device(name: str = "h100_80gb", stack: str = "current", attention: str = "sdpa") -> Device:
    machine = machines.read(MACHINES / f"{name}.json")
    judgement = judge(machine)
    return Device(
        machine, judgement.platform, judgement.gpu, stack_named(stack, judgement.platform, elsewhere=True), attention
    )


def _planned_run(device: Device | None = None, shape: ModelShape = MISTRAL_7B, **overrides: Any) -> PlannedRun:
    return PlannedRun(_settings(**overrides), shape, device or _device(), lambda settings: full_length(settings, 1000))


@pytest.mark.parametrize(("gigaflop", "checkpointing"), [(32.7, False), (47.8, True)])
def test_a_token_of_mistral_7b_costs_the_projects_figure(gigaflop: float, checkpointing: bool) -> None:
    settings = _settings(training__gradient_checkpointing=checkpointing)
    job = TrainingStep(
        MISTRAL_7B, settings, GENERATIONS["current"].traits, "cuda", "sdpa", MicroBatch(1, 4096, False, 4095)
    )
    work = full_length(_settings(training__max_steps=1), 16)
    assert flop_of(job, work) / work.computed_tokens / 1e9 == pytest.approx(gigaflop, abs=0.1)


def test_a_known_gpu_has_its_own_rate_and_a_mac_its_cores() -> None:
    assert "A100" in speed_of(MACHINE, "cuda", "NVIDIA A100-SXM4-40GB").reason
    assert (
        speed_of(MACHINE, "cuda", "NVIDIA H100 PCIe").fast_flops < speed_of(MACHINE, "cuda", "NVIDIA H100").fast_flops
    )
    apple = Apple(
        "Apple M4 Max", (26, 0), is_apple_silicon=True, is_rosetta=False, unified_memory_bytes=1, gpu_cores=40
    )
    assert speed_of(replace(MACHINE, apple=apple), "m4").fast_flops == 4 * speed_of(MACHINE, "m4").fast_flops


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({}, 7_184),
        (
            {
                "lora__lora_dropout": 0.0,
                "training__gradient_checkpointing": False,
                "training__per_device_train_batch_size": 2,
            },
            10_365,
        ),
    ],
)
def test_time_is_as_measured_where_the_same_was_measured_on_such_a_gpu(changes: dict[str, Any], tokens: int) -> None:
    plan = _planned_run(**changes).with_changes({}).plan
    assert plan.duration is not None
    expected = plan.computed_tokens / tokens
    assert plan.duration.fast_seconds == pytest.approx(0.9 * expected, rel=0.001)
    assert plan.duration.slow_seconds == pytest.approx(1.1 * expected, rel=0.001)
    assert plan.duration.basis.startswith("as measured")
    assert plan.duration.arithmetic_seconds > plan.duration.slow_seconds


@pytest.mark.parametrize(
    "changes",
    [
        {"lora__lora_dropout": 0.0},
        {"lora__r": 64},
        {"training__max_seq_length": 2048},
        {"training__gradient_checkpointing_every_n_layers": 2},
        {"quantization__load_in_4bit": False},
        {"training__padding_free": True},
        {"attention": "flex_attention"},
        {"stack": "reference"},
    ],
)
def test_what_was_not_measured_takes_the_range_of_what_was_on_such_a_gpu(changes: dict[str, Any]) -> None:
    device = {key: changes[key] for key in ("attention", "stack") if key in changes}
    planned_run = _planned_run(_device(**device), **{key: changes[key] for key in changes if key not in device})
    spent = planned_run.with_changes({}).plan.duration
    assert spent is not None
    assert (spent.basis, spent.rate) == ("by arithmetic", None)
    assert "measured on NVIDIA H100 80GB HBM3" in spent.source


def test_rows_of_many_lengths_are_looked_up_with_their_own_spread() -> None:
    rate = next(rate for rate in rates_on("NVIDIA H100 80GB HBM3") if rate.name == "speed/ragged/padded rows")
    batches = [MicroBatch(4, 4_000, True, 15_000)]
    computed = 24 * round(rate.work["tokens_at_once"])
    work = Workload(tuple(batches), 6, 24, 100_000, 90_000, computed, round(computed * 2_500), computed - 96)
    job = TrainingStep(MISTRAL_7B, _settings(), GENERATIONS["current"].traits, "cuda", "sdpa", batches[0])
    found = rate_of(job, work, rates_on("NVIDIA H100 80GB HBM3"))
    assert found == rate
    assert found.spread == 2 * rates_on("NVIDIA H100 80GB HBM3")[0].spread
    assert rate_of(job, replace(work, forward_passes=30), (rate,)) is None


def test_all_that_was_measured_lies_well_within_what_is_expected_of_a_gpu_and_of_its_platform(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the ledger, as in the image, the same GPU has the range of all that are in the data sheets."""
    rates = rates_on("NVIDIA H100 80GB HBM3")
    assert len(rates) >= 9
    monkeypatch.setattr(time, "rates_on", lambda _: ())
    expected = speed_of(MACHINE, "h100", "NVIDIA H100 80GB HBM3")
    assert "data sheet" in expected.reason
    reached = [rate.flop_per_second for rate in rates]
    assert expected.slow_flops <= min(reached) * 1.02
    assert max(reached) * 1.2 < expected.fast_flops


def test_a_place_without_a_ledger_has_no_measured_speeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "FOLDER", tmp_path / "missing")
    assert rates_on.__wrapped__("NVIDIA H100 80GB HBM3") == ()


def test_a_run_of_92_million_tokens_takes_an_m4_about_two_weeks() -> None:
    settings = _settings(training__max_seq_length=2048, training__per_device_train_batch_size=1)
    plan = plan_run(settings, MISTRAL_7B, _device("m4_32gb"), full_length(settings, 15_000))
    assert plan.duration is not None
    assert 270 < plan.duration.fast_seconds / 3600 < plan.duration.slow_seconds / 3600 < 330
    assert plan.verdict == "fits"


def test_a_small_model_is_given_no_time_and_no_ranking() -> None:
    planned_run = _planned_run(shape=SMALL)
    assert planned_run.with_changes({}).plan.duration is None
    assert [item.changes for item in faster(planned_run)] == [()]


def test_a_verdict_leaves_room_for_the_allocator() -> None:
    limit = MemoryLimit(100, "")
    assert [limit.verdict(size) for size in (90, 91, 105, 106)] == ["fits", "tight", "tight", "does not fit"]


def test_a_cuda_gpu_lends_what_neither_programs_nor_the_driver_hold_and_a_cpu_what_is_available() -> None:
    gpu = memory_limit(MACHINE, "h100", Gpu(0, "H100", 80 * 10**9, 30 * 10**9, memory_reserved_bytes=10**9))
    assert gpu is not None
    assert gpu.size_bytes == 49 * 10**9
    cpu = memory_limit(MACHINE, "cpu", None)
    assert cpu is not None
    assert cpu.size_bytes == 48 * 10**9
    assert memory_limit(replace(MACHINE, memory_available_bytes=None), "cpu", None) is None
    assert memory_limit(MACHINE, "m4", None) is None


def test_a_plan_on_a_cpu_says_what_it_leaves_out_unless_the_model_is_small() -> None:
    settings = _settings(training__max_seq_length=256, training__bf16=False, training__optim="adamw_torch")
    said = {
        (platform, shape): left_out(plan_run(settings, shape, _device(name), full_length(settings, 16)), platform)
        for platform, name in (("cpu", "linux_cpu"), ("h100", "h100_80gb"))
        for shape in (MISTRAL_7B, SMALL)
    }
    assert said.pop(("cpu", MISTRAL_7B)).startswith("not counted on a CPU: ")
    assert set(said.values()) == {""}


def test_faster_settings_fit_keep_the_batch_and_are_ranked_by_time() -> None:
    found = faster(_planned_run())
    assert any(not item.changes for item in found)
    assert [item.cost for item in found] == sorted(item.cost for item in found)
    for item in found:
        changes = dict(item.changes)
        rows = changes.get("training.per_device_train_batch_size", 4)
        assert rows * changes.get("training.gradient_accumulation_steps", 4) == 16
        assert item.plan.verdict == "fits"
        assert item.is_same_mathematics


def test_fewer_checkpoints_are_faster_and_take_more_memory() -> None:
    planned_run = _planned_run(_device("h200"))
    by_apart = [planned_run.with_changes({EVERY_N: apart}).plan for apart in (1, 2, 4, 8)]
    peaks = [plan.peak_memory_bytes for plan in by_apart]
    assert peaks == sorted(peaks)
    seconds = [plan.duration.slow_seconds for plan in by_apart if plan.duration]
    assert seconds == sorted(seconds, reverse=True)


def test_the_reference_stack_has_no_partial_checkpoints() -> None:
    found = faster(_planned_run(_device(stack="reference", attention="flash_attention_2")))
    assert not [item for item in found if dict(item.changes).get(EVERY_N, 1) > 1]


def test_what_changes_what_is_learnt_says_so() -> None:
    found = other_mathematics(_planned_run())
    assert found
    assert not any(item.is_same_mathematics for item in found)


def test_laying_rows_end_to_end_is_offered_where_attention_needs_no_mask() -> None:
    rows = TokenRows.of(
        EncodedRow([1] * length, [-100, *[1] * (length - 1)], length, length) for length in range(100, 612, 8)
    )
    settings = _settings()
    workloads, _ = workloads_for(settings, rows)
    for attention, offered in (("flash_attention_2", True), ("sdpa", False)):
        found = faster(PlannedRun(settings, MISTRAL_7B, _device(attention=attention), workloads))
        assert any(dict(item.changes).get("training.padding_free") for item in found) is offered


def test_the_mildest_change_that_fits_keeps_the_updates_where_it_can() -> None:
    found = mildest_that_fits(
        _planned_run(training__per_device_train_batch_size=16, training__gradient_checkpointing=False)
    )
    assert found is not None
    assert found.is_same_mathematics
    assert found.plan.verdict == "fits"
    tiny = replace(_device("rtx_4090"), gpu=Gpu(0, "small", 7 * 10**9))
    shorter = mildest_that_fits(_planned_run(tiny))
    assert shorter is not None
    assert not shorter.is_same_mathematics
    assert mildest_that_fits(_planned_run(replace(tiny, gpu=Gpu(0, "smaller", 4 * 10**9)))) is None


@pytest.mark.parametrize(("machine", "counts"), [("h100_80gb", False), ("m4_32gb", True)])
def test_rows_count_where_they_share_the_models_memory(machine: str, counts: bool) -> None:
    settings, device = _settings(training__max_seq_length=64), _device(machine)
    rows = TokenRows.of(EncodedRow([1] * 64, [-100, *[1] * 63], line, 64) for line in range(32))
    work = workload_of(order_batches(settings, rows), settings)
    assert work.rows_bytes > 32 * 64 * 4
    planned = plan_run(settings, MISTRAL_7B, device, work)
    terms = {term.name: term.size_bytes for term in planned.peak.terms}
    assert terms.get("rows and their order") == (work.rows_bytes if counts else None)


def test_a_run_is_planned_once_for_everyone_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machines.read(MACHINES / "h100_80gb.json")
    settings = _settings(training__max_seq_length=64, training__num_train_epochs=1.0)
    rows = TokenRows.of(EncodedRow([1] * 64, [-100, *[1] * 63], line, 64) for line in range(32))
    device = device_for(settings, judge(machine), machine, Stack("current", {}))
    planned_run = planned_run_of(settings, device, rows, rows)
    assert planned_run is not None
    predicted = planned_run.plan
    monkeypatch.setattr(alternatives, "plan_run", lambda *_: pytest.fail("planned again"))
    assert planned_run.plan is predicted
    assert (predicted.steps, predicted.tokens, predicted.batch.rows) == (2, 2048, 4)
    mapping = predicted.as_mapping()
    assert mapping["peak_memory_bytes"] == sum(mapping["terms"].values()) == predicted.peak_memory_bytes
    unknown = _settings(model__model_name_or_path="somebody/something")
    assert planned_run_of(unknown, device, rows) is None


@pytest.mark.parametrize(("name", "attention"), [("h100_80gb", "sdpa"), ("linux_cpu", "sdpa"), ("m4_32gb", "sdpa")])
def test_without_a_stack_a_run_is_planned_as_the_one_that_set_up_installs(name: str, attention: str) -> None:
    """It was planned in eager attention, which that stack takes nowhere: 37.3 GB for 15.6 on an H100."""
    machine, settings = machines.read(MACHINES / f"{name}.json"), _settings()
    device = device_for(settings, judge(machine), machine, Stack("none"))
    assert (device.stack.name, device.attention) == ("current", attention)
