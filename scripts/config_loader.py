"""Print a configuration as a run would see it: ``kit config``; and load one from Python."""

from __future__ import annotations

import sys

from kit.commands import start

if __name__ == "__main__":
    start("config", sys.argv[1:])

from kit.commands.config import load_config, validate_required_fields

__all__ = ["load_config", "validate_required_fields"]
