"""Hardware and kernels of a resumed run, compared with those before: other sums, other bits. Imports no torch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from kit.cli.findings import render, warning
from kit.files.numbers import mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kit.run_directory.receipt import Receipt

# On a GPU the CPU adds up nothing that is learnt.
_ON_A_GPU = frozenset({"device", "variables", "cuda", "cudnn"})


def note_changes(receipt: Receipt, then: Any, now: Mapping[str, Any], platform: str, step: int) -> None:
    """Report how a resumed run's compute differs from its checkpoint's; new keys do not count."""
    was = mapping(then)
    changed = [key for key in now if key in was and was[key] != now[key] and (platform == "cpu" or key in _ON_A_GPU)]
    if not changed:
        return
    differences = "; ".join(f"{key.replace('_', ' ')} is {now[key]}, was {was[key]}" for key in changed)
    fix = f"for identical bits, resume with OMP_NUM_THREADS={was['threads']}" if changed == ["threads"] else ""
    text = f"compute changed after step {step:,} ({differences}); the last digits may differ from here on"
    render([warning("resume.compute", text, fix)], sys.stderr)
    entries = [{"step": step, "key": key, "was": was[key], "is": now[key]} for key in changed]
    receipt.update(compute_changes=[*receipt.facts.get("compute_changes", []), *entries])
