"""Check that this environment can train: ``kit validate-environment``, and its functions for Python."""

from __future__ import annotations

import sys

from kit.commands import start

if __name__ == "__main__":
    start("validate-environment", sys.argv[1:])

from kit.checks.environment import environment_findings
from kit.commands.validate_environment import (
    check_imports_h100,
    check_imports_m4,
    check_mistral_compatibility,
    check_training_dependencies,
)

__all__ = [
    "check_imports_h100",
    "check_imports_m4",
    "check_mistral_compatibility",
    "check_training_dependencies",
    "environment_findings",
]
