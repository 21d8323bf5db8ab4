"""Check a training configuration: ``kit validate-config``."""

from __future__ import annotations

import sys

from kit.commands import start

if __name__ == "__main__":
    start("validate-config", sys.argv[1:])
