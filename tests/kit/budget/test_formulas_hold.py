"""The plan's formulas against what really is taken: small models of random weights, counted by torch itself."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from kit.interpreter import PROJECT_ROOT
from kit.stack import installed_stack

COMMAND = PROJECT_ROOT / "scripts" / "measure_memory.py"


def _compare(python: str) -> list[dict[str, object]]:
    done = subprocess.run([python, str(COMMAND), "--small", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return list(json.loads(done.stdout)["cases"])


@pytest.mark.slow
def test_the_current_stack_keeps_and_peaks_as_planned() -> None:
    if installed_stack().name != "current":
        pytest.skip("the installed stack is not the current one")
    found = _compare(sys.executable)
    assert len(found) >= 20
    assert [case for case in found if not case["within"]] == []


@pytest.mark.slow
@pytest.mark.stacks
def test_the_reference_stack_keeps_and_peaks_as_planned() -> None:
    python = PROJECT_ROOT / ".venv-reference" / "bin" / "python"
    if not python.exists():
        pytest.skip("needs .venv-reference: make setup STACK=reference")
    found = _compare(str(python))
    assert len(found) >= 15
    assert [case for case in found if not case["within"]] == []
