"""A run that is killed and resumed again and again ends as one nobody touched. ``make torture`` is the long version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kit.stack import installed_stack

if TYPE_CHECKING:
    from kit.torture.kills import Torture

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def torture(tmp_path_factory: pytest.TempPathFactory) -> Torture:
    pytest.importorskip("torch", reason="needs the libraries: make setup")
    from kit.torture.kills import Torture

    four_bit = "cpu" in installed_stack().four_bit_platforms
    return Torture(tmp_path_factory.mktemp("torture"), steps=10, save_steps=3, seed=1, four_bit=four_bit)


@pytest.mark.parametrize("how", ["time", "file", "term"])
def test_killed_and_resumed_a_run_ends_bit_equal(torture: Torture, how: str) -> None:
    finished = torture.report.finished
    torture.strike(3, how, how)
    assert torture.report.faults == []
    assert torture.report.finished == finished + 1


def test_the_kills_did_kill(torture: Torture) -> None:
    assert sum(torture.report.kills.values()) >= 3
