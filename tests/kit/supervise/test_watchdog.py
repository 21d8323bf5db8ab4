"""Losses that mean that nothing good is learnt any more, and ordinary ones that do not."""

from __future__ import annotations

import math
import random

import pytest

from kit.supervise.watchdog import Watchdog


def _first_bad(losses: list[float], norms: list[float | None] | None = None, **options: bool) -> tuple[str, int] | None:
    watchdog = Watchdog(32_000, **options)
    for step, loss in enumerate(losses, start=1):
        found = watchdog.judge(step, loss, norms[step - 1] if norms else 1.0)
        if found:
            return found.kind, found.step
    return None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_or_gradient_that_is_no_number_is_seen_at_its_step(value: float) -> None:
    assert _first_bad([2.0, value, 2.0]) == ("not_finite", 2)
    assert _first_bad([2.0] * 3, [1.0, 1.0, value]) == ("not_finite", 3)


def test_loss_scalings_infinite_gradients_are_its_own_matter() -> None:
    assert _first_bad([2.0] * 3, [math.inf, None, 1.0], judges_gradients=False) is None


def test_three_exact_zeros_are_a_loss_that_is_stuck() -> None:
    assert _first_bad([2.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0]) == ("zero", 7)


def test_a_loss_far_above_guessing_explodes() -> None:
    assert _first_bad([2.0] * 20 + [80.0] * 5) == ("exploding", 21)
    assert _first_bad([2.0] * 20 + [20.0] * 10) == ("exploding", 24)


@pytest.mark.parametrize(
    "losses",
    [
        [11.5] * 50,  # a base with random weights
        [30.0 - step for step in range(28)],  # bad, and getting better
        [2.0, 2.1, 9.0, 2.0, 1.9] * 10,  # one hard row now and then
        [1e-4, 3e-4, 1e-5, 2e-3, 1e-4] * 10,  # a small set, learnt by heart
    ],
)
def test_ordinary_losses_are_left_alone(losses: list[float]) -> None:
    assert _first_bad(losses) is None


def test_noise_is_no_explosion() -> None:
    noise = random.Random(0)  # noqa: S311 - made-up losses
    assert _first_bad([noise.lognormvariate(0.5, 0.6) for _ in range(5000)]) is None
