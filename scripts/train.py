"""Fine-tune the base model with QLoRA: ``kit train``."""

from __future__ import annotations

import sys

from kit.commands import start

if __name__ == "__main__":
    start("train", sys.argv[1:])
