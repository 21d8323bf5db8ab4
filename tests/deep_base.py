"""A base with as many matrices as Mistral-7B has, and narrow: what only depth shows is then seen in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kit.cli.quiet_libraries import quiet_imports

if TYPE_CHECKING:
    from pathlib import Path


def write_deep_base(folder: Path, *, layers: int = 32, hidden: int = 64) -> Path:
    """Write it in bfloat16, its weights as large beside its width as the real one's."""
    with quiet_imports():
        import torch

        from bench import random_base
        from kit.model.shape import ModelShape

    shape = ModelShape(300, hidden, hidden * 7 // 2, layers, 4, 2, hidden // 4, 512)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_base, "_SPREAD", 0.02 * (4096 / hidden) ** 0.5)
        return random_base.write_random_base(shape, folder, dtype=torch.bfloat16, device="cpu")
