"""What detection says of the shipped configurations is what the plan says of them."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from kit.config.platforms import PLATFORMS
from kit.machine.planned import planned
from kit.plan import needs
from kit.plan.measured import rates_on
from tools.shipped_needs import DEMO_SHAPE, shipped


def test_what_detection_says_of_the_shipped_configurations_is_the_plans() -> None:
    """It runs where nothing is installed, and reads what `make docs` wrote; the gate compares the two as well."""
    assert shipped() == {platform: asdict(planned(platform)) for platform in PLATFORMS}


def test_another_plan_makes_what_detection_says_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "_LARGEST_FILE", 1.0)
    assert shipped()["h100"]["loading_bytes"] > planned("h100").loading_bytes


def test_the_demos_shape_is_the_one_it_makes() -> None:
    base = pytest.importorskip("kit.demo.base", reason="needs the libraries: make setup")
    said = {key: value for key, value in base.SHAPE.items() if hasattr(DEMO_SHAPE, key)}
    assert said == {key: getattr(DEMO_SHAPE, key) for key in said}


def test_all_that_an_h100_was_measured_at_lies_in_the_range_that_detection_states() -> None:
    stated = planned("h100")
    rates = rates_on("NVIDIA H100 80GB HBM3")
    assert len(rates) >= 9
    assert stated.slow_tokens_per_second <= min(rate.tokens_per_second for rate in rates)
    assert stated.fast_tokens_per_second * 1.05 >= max(rate.tokens_per_second for rate in rates)
