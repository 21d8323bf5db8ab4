"""All tests: those of one stack first, then those that train on both, which need .venv-reference.

Run as:
    make test
    make test ARGS="-k config"      # what follows goes to pytest
    make test ARGS="-n 1"           # one test at a time, instead of one a core
    make test ARGS=--hypothesis-profile=search      # other examples of what holds for any, each time
"""

from __future__ import annotations

import subprocess
import sys

from kit.cli.command import run_main
from kit.cli.interpreter import PROJECT_ROOT
from tools.gate.at_once import at_once
from tools.gate.steps import Step, run_steps
from tools.setup.rules import probe_host, refuse_platform

_NO_TESTS_COLLECTED = 5


def pytest_step(name: str, marker: str, more: list[str]) -> Step:
    """Return a step that runs the tests of one tier.

    A selection such as ``-k config`` may leave a tier empty; without one, an empty tier is a failure.
    """

    def run() -> int:
        command = [sys.executable, "-m", "pytest", "-m", marker, *at_once(more), *more]
        code = subprocess.run(command, cwd=PROJECT_ROOT, check=False).returncode
        return 0 if more and code == _NO_TESTS_COLLECTED else code

    return Step(name, run)


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    more = sys.argv[1:] if argv is None else argv
    refusal = refuse_platform(probe_host(), "reference")
    both = "tests on both stacks"
    setup = [sys.executable, "-m", "tools.setup_environment", "--stack", "reference"]
    steps = [
        pytest_step("tests", "not stacks", more),
        *(
            [Step(both, skipped_because=refusal.message)]
            if refusal
            else [Step("reference environment", setup), pytest_step(both, "stacks", more)]
        ),
    ]
    return run_steps(steps, PROJECT_ROOT)


if __name__ == "__main__":
    run_main(main)
