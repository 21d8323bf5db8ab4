"""What computes a resumed run, compared with what computed it before: other sums, other bits. Imports no torch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from kit.cli.findings import render, warning
from kit.files.numbers import mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kit.run_folder.receipt import Receipt

# On a GPU the CPU adds up nothing that is learnt.
_ON_A_GPU = frozenset({"device", "variables", "cuda", "cudnn"})


def note_changes(receipt: Receipt, then: Any, now: Mapping[str, Any], platform: str, step: int) -> None:
    """Say and write down what computes the rest of a run otherwise than its beginning.

    Args:
        receipt: The run's.
        then: What the checkpoint's steps were computed with, as ``describe_compute`` has it; whatever an earlier
            version did not write down is not compared.
        now: What computes the rest.
        platform: Platform name.
        step: The step that is gone on from.
    """
    was = mapping(then)
    changed = [key for key in now if key in was and was[key] != now[key] and (platform == "cpu" or key in _ON_A_GPU)]
    if not changed:
        return
    told = "; ".join(f"{key.replace('_', ' ')} is {now[key]} and was {was[key]}" for key in changed)
    fix = f"for the same bits, resume with OMP_NUM_THREADS={was['threads']}" if changed == ["threads"] else ""
    text = (
        f"this computes otherwise than the run did until step {step:,} ({told}): the rest may differ in the last digits"
    )
    render([warning("resume.compute", text, fix)], sys.stderr)
    entries = [{"step": step, "key": key, "was": was[key], "is": now[key]} for key in changed]
    receipt.update(compute_changes=[*receipt.facts.get("compute_changes", []), *entries])
