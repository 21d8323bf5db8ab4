"""The benchmark's rows: legal configurations, the same tokens for everybody, honest ratios."""

from __future__ import annotations

import pytest

from bench.variants import SCALES, VARIANTS, Variant, flop_per_token, overrides, rows_of
from kit.checks import rules
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.data.batch_order import order_batches
from kit.machine import facts as machines
from kit.machine.platforms import judge
from kit.model.shape import MISTRAL_7B
from kit.stacks.stack import stack_of

H100 = PROJECT_ROOT / "configs/training_config_h100.yaml"
STACK = stack_of(
    {
        "torch": "2.10.0",
        "transformers": "5.23.0",
        "bitsandbytes": "0.50.2",
        "liger-kernel": "0.8.5",
        "flash-attn": "2",
        "flash-attn-4": "4.0.0b36",
    }
)
CASES = [(variant, workload) for variant in VARIANTS for workload in variant.workloads]


@pytest.mark.parametrize(("variant", "workload"), CASES, ids=lambda case: getattr(case, "name", case))
def test_every_row_is_a_configuration_that_an_h100_takes(variant: Variant, workload: str) -> None:
    machine = machines.read(PROJECT_ROOT / "tests/fixtures/machines/h100_80gb.json")
    resolved = resolve(H100, overrides(variant, workload, SCALES["7b"], on_cuda=True))
    findings = rules.check(resolved, judge(machine), machine, STACK)
    # The data are made on the spot, and what does not fit is what the benchmark is there to find out.
    wrong = [item for item in findings if item.severity == "error" and item.id != "config.memory"]
    assert not [item for item in wrong if not item.id.startswith("config.data.")]


@pytest.mark.parametrize("workload", ["full", "ragged"])
def test_all_variants_of_a_workload_train_on_the_same_tokens(workload: str) -> None:
    small = SCALES["small"]
    plans = {
        order_batches(
            resolve(H100, overrides(variant, workload, small, on_cuda=False)).settings, rows_of(workload, small)
        ).tokens.tobytes()
        for variant in VARIANTS
        if workload in variant.workloads
    }
    assert len(plans) == 1


def test_ragged_rows_are_ragged_and_full_rows_are_full() -> None:
    scale = SCALES["small"]
    assert {len(row.input_ids) for row in rows_of("full", scale)} == {scale.length}
    lengths = sorted(len(row.input_ids) for row in rows_of("ragged", scale))
    assert lengths[0] < scale.length / 4
    assert lengths[-1] > scale.length / 2


def test_a_token_of_mistral_7b_costs_32_gflop_without_recomputation() -> None:
    # The project's own count is 32.5, the adapter's work included.
    assert flop_per_token(MISTRAL_7B, 4096) == pytest.approx(32.5e9, rel=0.02)
