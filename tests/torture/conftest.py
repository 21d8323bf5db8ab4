"""What the torture's tests share: one small job, prepared once, and a finished run of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kit.stacks.stack import installed_stack

if TYPE_CHECKING:
    from torture.kills import Torture


@pytest.fixture(scope="session")
def small_torture(tmp_path_factory: pytest.TempPathFactory) -> Torture:
    pytest.importorskip("torch", reason="needs the libraries: make setup")
    from torture.kills import Torture

    four_bit = "cpu" in installed_stack().traits.four_bit_platforms
    folder = tmp_path_factory.mktemp("torture")
    return Torture(folder, steps=8, save_steps=2, seed=1, four_bit=four_bit)
