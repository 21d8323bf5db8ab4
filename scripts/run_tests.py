"""All tests: those of one stack first, then those that train on both, which need .venv-reference.

Run as:
    make test
    make test ARGS="-k config"      # what follows goes to pytest
    make test ARGS="-n 1"           # one test at a time, instead of one a core
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import psutil

from kit.gate.steps import Step, run_steps
from kit.interpreter import PROJECT_ROOT
from kit.setup.rules import probe_host, refuse_platform

_NO_TESTS_COLLECTED = 5
_MOST_WORKERS, _MEMORY_BYTES = 8, 4 * 10**9
# A debugger and a terminal need pytest's own process; -n says itself how many.
_ALONE = re.compile(r"--pdb|--trace|-s\Z|--capture=no|-n|--numprocesses|-p\Z")


def workers() -> int:
    """Return how many tests run at once: one a core, up to eight, and one for every 4 GB of free memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _MOST_WORKERS, psutil.virtual_memory().available // _MEMORY_BYTES))


def _at_once(more: list[str]) -> list[str]:
    """Spread the tests over the cores, each file in one worker; not for somebody who looks into them."""
    if workers() == 1 or any(_ALONE.match(word) for word in more):
        return []
    # In the order they are collected, which begins with the slow ones: see tests/conftest.py.
    return ["-n", str(workers()), "--dist", "loadfile", "--no-loadscope-reorder"]


def pytest_step(name: str, marker: str, more: list[str]) -> Step:
    """Return a step that runs the tests of one tier.

    A selection such as ``-k config`` may leave a tier empty; without one, an empty tier is a failure.
    """

    def run() -> int:
        command = [sys.executable, "-m", "pytest", "-m", marker, *_at_once(more), *more]
        code = subprocess.run(command, cwd=PROJECT_ROOT, check=False).returncode
        return 0 if more and code == _NO_TESTS_COLLECTED else code

    return Step(name, run)


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    more = sys.argv[1:] if argv is None else argv
    refusal = refuse_platform(probe_host(), "reference")
    both = "tests on both stacks"
    setup = [sys.executable, str(PROJECT_ROOT / "scripts" / "setup_environment.py"), "--stack", "reference"]
    steps = [
        pytest_step("tests", "not stacks", more),
        *(
            [Step(both, skipped_because=refusal.message)]
            if refusal
            else [Step("reference environment", setup), pytest_step(both, "stacks", more)]
        ),
    ]
    try:
        return run_steps(steps, PROJECT_ROOT)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
