"""Where two runs diverge, and the likely cause."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from kit.run_directory.history import read_run
from kit.runs.divergence import find_divergence, in_words
from written_run import RESOLVED, falling, write_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kit.runs.divergence import Divergence

IDENTITY = {"data.rows": "1" * 64, "data.order": "2" * 64, "base_model.model.safetensors": "3" * 64}
SAME = {"adapter_init_sha256": "a" * 64, "adapter_sha256": "b" * 64, "identity": IDENTITY}


def config(**changes: object) -> dict[str, Any]:
    """The demo's configuration with some keys changed; dots are written ``__``."""
    values: dict[str, Any] = {section: dict(body) for section, body in RESOLVED.settings.as_mapping().items()}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        values[section][name] = value
    return values


def parted(at: int, by: float = 0.1) -> Callable[[int], float]:
    """A loss that falls as the other run's, and is off by a share from a step on."""
    return lambda step: falling(step) * (1 + by if step >= at else 1)


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., Divergence]:
    def compared(first: dict[str, Any] | None = None, **second: Any) -> Divergence:
        write_run(tmp_path / "a", **{**SAME, **(first or {})})
        write_run(tmp_path / "b", **{**SAME, **second})
        return find_divergence(read_run(tmp_path / "a"), read_run(tmp_path / "b"))

    return compared


def test_equal_runs_are_said_to_be_equal_to_the_last_bit(compare: Callable[..., Divergence]) -> None:
    found = compare()
    assert found.differences == ()
    assert (found.adapter_at_start, found.order_of_rows, found.adapter_at_end) == ("the same",) * 3
    assert in_words(found.traces["training loss"]) == "bit-equal over all 100 steps"
    assert found.verdict == "All 100 steps in common are bit-equal, and so are the adapters."


def test_the_last_bit_of_one_loss_is_found(compare: Callable[..., Divergence]) -> None:
    found = compare(loss=lambda step: math.nextafter(falling(step), 9) if step == 70 else falling(step))
    said = in_words(found.traces["training loss"])
    assert said.startswith("bit-equal over 69 steps, then different from step 70 on")
    assert "1 of 100 steps differ" in said
    assert "differ from step 70 on" in found.verdict


def test_a_learning_rate_explains_what_begins_after_the_first_step(compare: Callable[..., Divergence]) -> None:
    found = compare(loss=parted(2), config=config(training__learning_rate=0.5, lora__lora_dropout=0.5))
    assert found.verdict.endswith("likely cause: lora.lora_dropout, training.learning_rate.")


def test_a_learning_rate_does_not_explain_another_first_loss(compare: Callable[..., Divergence]) -> None:
    found = compare(loss=parted(1), config=config(training__learning_rate=0.5, lora__lora_dropout=0.5))
    assert found.verdict.endswith("likely cause: lora.lora_dropout.")


def test_what_cannot_move_a_number_is_shown_and_explains_nothing(compare: Callable[..., Divergence]) -> None:
    found = compare(loss=parted(5), config=config(training__logging_steps=7), packages={"torch": "2.10.0", "rich": "1"})
    assert {row.name for row in found.differences} == {"training.logging_steps", "rich", "peft"}
    assert "logging_steps" not in found.verdict
    assert "rich" not in found.verdict
    assert "likely cause: peft." in found.verdict


def test_other_rows_and_another_order_are_named(compare: Callable[..., Divergence]) -> None:
    found = compare(loss=parted(1), identity={**IDENTITY, "data.order": "9" * 64})
    assert found.order_of_rows == "another"
    assert found.verdict.endswith("likely cause: order of the rows.")


def test_another_adapter_at_the_start_comes_before_all_else(compare: Callable[..., Divergence]) -> None:
    changed = config(training__seed=7, training__learning_rate=0.5)
    found = compare(loss=parted(1), adapter_init_sha256="c" * 64, config=changed)
    assert found.adapter_at_start == "another"
    assert found.verdict == "The initial adapters differ; likely cause: training.seed."


def test_on_a_cpu_nothing_recorded_is_no_excuse(compare: Callable[..., Divergence]) -> None:
    assert "no recorded cause" in compare(loss=parted(3)).verdict


def test_on_a_gpu_rounding_is_allowed_and_more_than_rounding_is_not(compare: Callable[..., Divergence]) -> None:
    gpu = {"platform": "h100"}
    assert "likely cause: rounding" in compare(gpu, loss=parted(3, by=1e-7), **gpu).verdict
    assert "no recorded cause" in compare(gpu, loss=parted(3, by=1e-3), **gpu).verdict


def test_versions_machine_code_and_image_are_told_apart(compare: Callable[..., Divergence]) -> None:
    found = compare(
        loss=parted(1, by=1e-7),
        git_revision="f" * 16,
        platform="h100",
        image={"id": "sha256:1"},
        machine={"system": "Linux", "in_container": True, "nvidia": {"gpus": [{"name": "NVIDIA H100"}]}},
        stack="reference",
    )
    groups = {row.group for row in found.differences}
    assert groups == {"code", "stack", "machine", "image"}
    assert "git_revision, stack" in found.verdict


def test_equal_losses_with_other_evaluations_name_what_was_evaluated(compare: Callable[..., Divergence]) -> None:
    found = compare(evaluations=[(50, 1.2), (100, 0.7)], config=config(training__per_device_eval_batch_size=1))
    assert found.verdict.endswith("these differ: validation loss.")
    assert "different from step 50 on (there by 8%)" in in_words(found.traces["validation loss"])


def test_runs_of_other_lengths_are_compared_where_both_have_steps(compare: Callable[..., Divergence]) -> None:
    found = compare(done=60)
    assert in_words(found.traces["training loss"]) == ("bit-equal over all 60 steps; 40 steps in only one run")


def test_a_run_without_a_step_leaves_nothing_to_say(compare: Callable[..., Divergence]) -> None:
    found = compare(done=0, evaluations=[])
    assert "no step in common" in found.verdict


def test_a_loss_that_is_no_number_can_be_said(compare: Callable[..., Divergence]) -> None:
    found = compare(loss=lambda step: math.nan if step == 9 else falling(step))
    assert "one is not finite" in in_words(found.traces["training loss"])
    assert found.as_mapping()["traces"]["training loss"]["first_difference"]["relative"] is None


def test_a_resumed_run_is_pointed_at(compare: Callable[..., Divergence]) -> None:
    found = compare(loss=parted(50), sessions=[{"from_step": 0}, {"from_step": 49}])
    assert "one run was resumed" in found.verdict


def test_receipts_that_hold_anything_are_compared(compare: Callable[..., Divergence]) -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        ("config", "data", "identity", "packages", "machine", "compute", "image"), 3
    )
    found = compare(nothing, **nothing)
    assert found.order_of_rows == "not recorded"
