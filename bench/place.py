"""Where and with what this process measures, for the ledger."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kit.cli.interpreter import PROJECT_ROOT
from kit.machine.platforms import judge
from kit.machine.probe import probe
from kit.plan.ledger import Place, Record, append, code_hash
from kit.run_directory.provenance import describe_code
from kit.stacks.stack import installed_stack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kit.machine.facts import Machine
    from kit.machine.platforms import Judgement
    from kit.stacks.stack import Stack

KIT, BENCH = PROJECT_ROOT / "scripts" / "kit", PROJECT_ROOT / "bench"
# What the figures of training on one device depend on: a change elsewhere does not make them old.
OF_TRAINING = (
    *(KIT / "train" / name for name in ("trainer.py", "performance.py", "arguments.py", "trl_rows.py")),
    *(KIT / "stacks" / name for name in ("current.py", "reference.py")),
    *(KIT / "modeling" / name for name in ("model.py", "torch_attention.py", "resident.py")),
    *(BENCH / name for name in ("steps.py", "clocks.py", "variants.py", "worker.py", "memory_measure.py")),
    PROJECT_ROOT / "configs" / "training_config_h100.yaml",
)
OF_DATA = (KIT / "data", KIT / "intake", BENCH / "data_preparation")
OF_COMMANDS = (KIT,)


def place_of(machine: Machine, judgement: Judgement, stack: Stack, scale: str, code: Sequence[Path]) -> Place:
    """Return where and with what is measured on a machine, with code whose change makes the figures old."""
    gpu = judgement.gpu
    return Place(
        scale,
        gpu.name if gpu else f"{machine.cpu_model}, {machine.cpu_count} cores",
        (machine.nvidia.driver_version or "") if gpu else "",
        (gpu.memory_total_bytes if gpu else machine.memory_total_bytes) or 0,
        stack.versions,
        platform.python_version(),
        code_hash(code),
    )


def append_results(
    folder: Path, scale: str, code: Sequence[Path], command: list[str], results: Mapping[str, dict[str, Any]]
) -> Path:
    """Append what a command measured on this machine's processor, by name; return the ledger.

    Raises:
        OSError: It cannot be written.
    """
    machine = probe()
    place = place_of(machine, judge(machine), installed_stack(), scale, code)
    now, commit = datetime.now(UTC).isoformat(timespec="seconds"), describe_code()
    for name, result in results.items():
        append(folder / place.file_name, Record(name, place, result, 0.0, now, command, commit))
    return folder / place.file_name
