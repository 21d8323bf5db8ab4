"""``training.padding_free: auto`` becomes one thing, by facts, before a run; whoever reads it later finds a boolean."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.data.encoding import EncodedRow
from kit.data.token_rows import TokenRows
from kit.machine import facts as machines
from kit.machine.platforms import judge
from kit.plan.alternatives import planned_run_of
from kit.plan.padding_free import KEY, decided, decision, is_decided
from kit.plan.run_plan import device_for
from kit.stacks.stack import stack_of
from kit.train.auto_fit import applied, planned_fit, recorded, set_line

if TYPE_CHECKING:
    from kit.config.resolve import Resolved
    from kit.machine.platforms import Judgement

H100 = PROJECT_ROOT / "configs" / "training_config_h100.yaml"
CURRENT = {"torch": "2.10.0", "transformers": "5.23.0", "bitsandbytes": "0.50.2"}
REFERENCE = {"torch": "2.1.0", "transformers": "4.36.0", "flash-attn": "2.5.8"}
RAGGED, EVEN = (100, 900, 300, 500), (500,) * 16
SDPA, FLEX, FA4 = ({"model.attn_implementation": name} for name in ("sdpa", "flex_attention", "flash_attention_4"))


def _rows(lengths: tuple[int, ...] = RAGGED) -> TokenRows:
    return TokenRows.of(EncodedRow([1] * size, [-100, *[1] * (size - 1)], at, size) for at, size in enumerate(lengths))


def _judged(name: str) -> Judgement:
    return judge(machines.read(PROJECT_ROOT / f"tests/fixtures/machines/{name}.json"))


def _decided(machine: str = "h100_80gb", versions: dict[str, str] | None = None, **changes: Any) -> Resolved:
    rows = changes.pop("rows", _rows())
    resolved = resolve(H100, {KEY: "auto", **changes.pop("changes", {})})
    return decided(resolved, _judged(machine), stack_of(versions or CURRENT), rows)


def test_until_it_is_decided_the_settings_say_false() -> None:
    resolved = resolve(H100)
    assert resolved.values["training"]["padding_free"] == "auto"
    assert resolved.settings.training.padding_free is False
    assert decision(resolved) == ""


@pytest.mark.parametrize(
    ("facts", "value", "reason"),
    [
        ({}, True, "50% of the computed tokens would be padding, and varlen needs no mask for rows of any length"),
        ({"machine": "a100_40gb"}, True, "50% of the computed tokens would be padding, and varlen needs no mask"),
        (
            {"versions": CURRENT | {"flash-attn": "2.8.3"}},
            True,
            "50% of the computed tokens would be padding, and flash",
        ),
        ({"rows": _rows(EVEN)}, False, "0% of the computed tokens would be padding, less than 5%"),
        ({"changes": {"training.per_device_train_batch_size": 1}}, False, "0% of the computed tokens would be padding"),
        ({"rows": None}, False, "the rows' lengths are unknown"),
        ({"machine": "linux_cpu"}, False, "it needs an NVIDIA GPU; this platform is cpu"),
        ({"machine": "m4_32gb"}, False, "it needs an NVIDIA GPU; this platform is m4"),
        ({"versions": REFERENCE}, False, "it needs the current stack"),
        ({"versions": CURRENT | {"torch": "2.9.1"}}, False, "auto does not use it with flex_attention attention"),
        ({"changes": SDPA}, False, "auto does not use it with sdpa attention"),
        ({"changes": FLEX}, False, "auto does not use it with flex_attention attention"),
        (
            {"changes": FA4, "versions": CURRENT | {"flash-attn-4": "4.0.0b36"}},
            False,
            "auto does not use it with flash_attention_4",
        ),
    ],
)
def test_the_facts_decide_and_the_reason_is_said(facts: dict[str, Any], value: bool, reason: str) -> None:
    resolved = _decided(**facts)
    assert resolved.settings.training.padding_free is value
    assert resolved.values["training"]["padding_free"] is value
    assert decision(resolved).startswith(f"{KEY} is auto, and {str(value).lower()} here: {reason}")


def test_an_older_gpu_has_no_kernel_for_it() -> None:
    judgement = _judged("a100_40gb")
    assert judgement.gpu is not None
    older = replace(judgement, gpu=replace(judgement.gpu, compute_capability=(7, 5)))
    resolved = decided(resolve(H100), older, stack_of(CURRENT), _rows())
    assert resolved.settings.training.padding_free is False
    assert "needs compute capability 8.0 or later" in decision(resolved)


@pytest.mark.parametrize("value", [True, False])
def test_true_and_false_mean_what_they_say(value: bool) -> None:
    resolved = resolve(H100, {KEY: value})
    assert decided(resolved, _judged("h100_80gb"), stack_of(CURRENT), _rows()) is resolved


def test_the_place_stays_in_the_origin() -> None:
    resolved = _decided()
    assert resolved.where(KEY).startswith("command line, auto: 50% of")
    assert is_decided(resolved)


def test_a_fit_keeps_what_was_decided_for_the_settings_before_it() -> None:
    """With fewer rows at once there is no padding: decided anew, a run that goes on would be refused as another."""
    machine = machines.read(PROJECT_ROOT / "tests/fixtures/machines/h100_80gb.json")
    assert machine.nvidia is not None
    small = tuple(replace(gpu, memory_used_bytes=gpu.memory_total_bytes - 15 * 10**9) for gpu in machine.nvidia.gpus)
    machine = replace(machine, nvidia=replace(machine.nvidia, gpus=small))
    rows, stack = _rows(tuple(range(250, 4001, 250))), stack_of(CURRENT)
    asked = resolve(H100, {KEY: "auto"})
    before = decided(asked, judge(machine), stack, rows)
    device = device_for(before.settings, judge(machine), machine, stack)
    fit = planned_fit(before, planned_run_of(before.settings, device, rows))
    assert fit is not None
    assert (fit.before[KEY], fit.after[KEY]) == ("auto", True)
    assert f"{KEY}=true" in set_line(before, fit)
    assert recorded({"auto_fit": [fit.as_mapping()]}, asked) == [fit]
    again = decided(applied(asked, fit), judge(machine), stack, rows)
    assert again.settings.training.padding_free is True
    assert again.settings == applied(before, fit).settings
